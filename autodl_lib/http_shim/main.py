"""`autodl http`: from what was asked for to a server, until SIGTERM.

Runs as: an unprivileged account; it refuses to be root, or to have a capability.  Talks to: HTTP clients, the daemon.
To the daemon it is a client like any other: its tasks are those of the account that it runs as.
How it fails: before it listens, with a sentence and an exit status; a daemon that is away is a 503 until it is back.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from typing import TYPE_CHECKING

from autodl_lib.contract.errors import AutodlError, NotAllowed
from autodl_lib.contract.http_options import DEFAULT_LISTEN, HttpOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from autodl_lib.client.connection import Connection

logger = logging.getLogger(__name__)


def run(options: HttpOptions, open_daemon: Callable[[], Connection]) -> int:
    """Serve until told to end, asking on connections that `open_daemon` opens; return the exit status.

    Raises: AutodlError.
    """
    _refuse_privilege()
    if importlib.util.find_spec("h11") is None:
        raise AutodlError("`autodl http` needs h11: run `apt install python3-h11`, or `pip install 'autodl[http]'`")
    from autodl_lib.http_shim.daemon_link import DaemonLink
    from autodl_lib.http_shim.service import serve
    from autodl_lib.http_shim.sockets import open_sockets
    from autodl_lib.http_shim.token_file import load_token

    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s", level=logging.INFO)
    token = load_token(options.token_file)
    listening = open_sockets(options.listen, DEFAULT_LISTEN, allow_remote=options.allow_remote)
    try:
        serve(options, DaemonLink(open_daemon), token, listening)
    finally:
        for one in listening:
            one.close()
    logger.info("stopped")
    return 0


def _refuse_privilege() -> None:
    """Refuse to serve HTTP with more rights than an account's.

    Raises: NotAllowed.
    """
    if 0 in os.getresuid():
        raise NotAllowed(
            "`autodl http` does not run as root, since its tasks are those of the account that it runs as;"
            " use `systemctl enable --now autodl-http.socket`, or `runuser -u USER -- autodl http`"
        )
    if _has_capabilities():
        raise NotAllowed("`autodl http` does not run with capabilities; for a low port, use a socket of systemd")


def _has_capabilities() -> bool:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            sets = [line.split() for line in file if line.startswith(("CapPrm:", "CapEff:", "CapAmb:"))]
    except OSError:
        return False
    return any(int(words[1], 16) for words in sets)
