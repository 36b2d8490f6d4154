"""`autodl http`: hands its options to the server that autodl.py brings along.

Runs as: an unprivileged account of its own, or a user.
"""

from __future__ import annotations

from typing import Any

import click

from autodl_lib.cli.command import make_command
from autodl_lib.cli.options import Seconds, request_parameters
from autodl_lib.cli.session import Session
from autodl_lib.client.locate import locate
from autodl_lib.contract.http_options import HttpOptions

_DESCRIPTION = """Serve HTTP to programs on this machine or in its containers that speak HTTP, but no Unix sockets.

It is a client like any other: what comes by HTTP is done as the user that it runs as, with that user's tasks. It
refuses to run as root. Whoever has the token can do all of this; without it nothing is answered but 401. The token is
made at the first start, in a file that only you can read: ~/.local/state/autodl/http-token, or what --token-file says.

POST /rpc takes the daemon's own JSON-RPC requests. GET /tasks, /tasks/ID, /tasks/ID/log, /tasks/ID/explain, /history
and /stats are questions, with the parameters that autodl-protocol(7) has for them. GET /events streams tasks as they
change, as server-sent events.

There is no TLS. Where no daemon answers, it waits for one, and answers 503. SIGTERM stops it."""


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    hidden = click.Option(["patience_s", "--patience"], type=Seconds(0.01), metavar="SECONDS", hidden=True)
    return {"http": make_command("http", _DESCRIPTION, [*request_parameters(HttpOptions), hidden], _http)}


def _http(session: Session, **values: Any) -> int:
    assert session.run_http is not None
    # A path that can't be a socket's is wrong now, and not when the first one asks.
    locate(session.socket)
    return session.run_http(HttpOptions(**values), session.connect)
