"""`autodl http`: hands its options to the server that autodl.py brings along.

Runs as: an unprivileged account of its own, or a user.
"""

from __future__ import annotations

import click

from autodl_lib.cli.command import make_command
from autodl_lib.cli.options import Seconds
from autodl_lib.cli.session import Session

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
    parameters: list[click.Parameter] = [
        click.Option(
            ["--listen"],
            multiple=True,
            metavar="ADDRESS",
            help="listen here: ADDRESS:PORT or unix:PATH; may be repeated [default: 127.0.0.1:6736]",
        ),
        click.Option(
            ["--token-file"],
            metavar="FILE",
            help="the token's file, made if it is not there [default: ~/.local/state/autodl/http-token]",
        ),
        click.Option(
            ["folders", "--dir"],
            multiple=True,
            metavar="DIR",
            help="tasks may save to this folder and below, and name files in it; may be repeated, / is anywhere"
            " [default: ~/autodl-storage]",
        ),
        click.Option(
            ["host_names", "--host-name"],
            multiple=True,
            metavar="NAME",
            help="also answer to this name in the Host header, such as that of a proxy; may be repeated",
        ),
        click.Option(
            ["origins", "--allow-origin"],
            multiple=True,
            metavar="ORIGIN",
            help="let web pages of this origin ask, such as https://example.org; they need the token too;"
            " may be repeated",
        ),
        click.Option(
            ["--allow-remote"], is_flag=True, help="listen where other machines can reach it, though there is no TLS"
        ),
        click.Option(["--read-only"], is_flag=True, help="refuse what changes something"),
        click.Option(["patience_s", "--patience"], type=Seconds(0.01), metavar="SECONDS", hidden=True),
    ]
    return {"http": make_command("http", _DESCRIPTION, parameters, _http)}


def _http(
    session: Session,
    listen: tuple[str, ...],
    token_file: str | None,
    folders: tuple[str, ...],
    host_names: tuple[str, ...],
    origins: tuple[str, ...],
    allow_remote: bool,
    read_only: bool,
    patience_s: float | None,
) -> int:
    assert session.run_http is not None
    return session.run_http(
        open_daemon=session.connect,
        listen=listen,
        token_file=token_file,
        folders=folders,
        host_names=host_names,
        origins=origins,
        allow_remote=allow_remote,
        read_only=read_only,
        patience_s=patience_s,
    )
