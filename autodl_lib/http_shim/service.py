"""Joins the parts of `autodl http`, and runs its loop.

Runs as: an unprivileged account.  Talks to: HTTP clients, the daemon, through its parts.
"""

from __future__ import annotations

import asyncio
import logging
import signal

from autodl_lib.contract.http_options import HttpOptions
from autodl_lib.http_shim.application import Application, Policy
from autodl_lib.http_shim.client_stream import ClientStream, Patience
from autodl_lib.http_shim.daemon_link import DaemonLink
from autodl_lib.http_shim.folders import Folders
from autodl_lib.http_shim.guard import Guard, checked_host, checked_origin
from autodl_lib.http_shim.http_connection import HttpConnection
from autodl_lib.http_shim.refused_log import RefusedLog
from autodl_lib.http_shim.server import Server
from autodl_lib.http_shim.sockets import Listening
from autodl_lib.http_shim.token_file import Token

logger = logging.getLogger(__name__)


def serve(options: HttpOptions, link: DaemonLink, token: Token, listening: list[Listening]) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises: InvalidParams.
    """
    own_hosts = {one.host for one in listening if one.host not in (None, "0.0.0.0", "::")}  # noqa: S104  (compared)
    guard = Guard(
        token=token.text,
        host_names=frozenset({*map(checked_host, options.host_names), *filter(None, own_hosts)}),
        origins=frozenset(map(checked_origin, options.origins)),
    )
    policy = Policy(folders=Folders(options.folders), read_only=options.read_only)
    patience = Patience() if options.patience_s is None else Patience.of(options.patience_s)
    try:
        asyncio.run(_serve(Application(guard, policy, link), patience, token, listening))
    finally:
        link.close()


async def _serve(application: Application, patience: Patience, token: Token, listening: list[Listening]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    for one in listening:
        logger.info("listens on %s; the token is in %s", one.name, token.path)
        if one.is_remote:
            logger.warning("%s: no TLS, so whoever is on the way can read the token and use it", one.name)
    refused = RefusedLog()

    def make(stream: ClientStream) -> HttpConnection:
        return HttpConnection(stream, application, refused)

    await Server(make, patience).run([one.socket for one in listening], stop)
