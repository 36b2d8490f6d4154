"""`autodl add`, and what it shares with `autodl get`: sending the requests.

Runs as: the caller.  Talks to: the daemon through client.
How it fails: when a request of a long list is refused, the ids before it have been printed and are queued.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from autodl_lib.cli.add_parameters import add_parameters
from autodl_lib.cli.add_requests import add_requests
from autodl_lib.cli.command import described, make_command
from autodl_lib.cli.session import Session, complain, say, say_json
from autodl_lib.cli.text import plural
from autodl_lib.client.connection import Connection
from autodl_lib.client.results import decoded
from autodl_lib.contract.errors import AutodlError
from autodl_lib.contract.replies.tasks import Ids
from autodl_lib.contract.requests.adding import DEFAULT_DIR, Add

_NOTE = """The last argument is the folder to save to if it has no '://' and --dir is not given. One that ends in
.meta4 or .metalink and is a file is read as with --metalink.

Prints the number of each new task, by which `autodl status`, `watch` and `cancel` know it."""


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    arguments = click.Argument(["arguments"], nargs=-1, metavar="[URL|METALINK]... [DIR]")
    parameters = [arguments, *add_parameters(default_dir=DEFAULT_DIR)]
    return {"add": make_command("add", described(Add, _NOTE), parameters, _add)}


def add_all(connection: Connection, requests: list[Add]) -> Iterator[list[int]]:
    """Send the requests and yield the ids of each."""
    for result in connection.call_all(requests):
        yield list(decoded(Ids, result).ids)


def _add(session: Session, **values: Any) -> int:
    requests = add_requests(values, default_dir=DEFAULT_DIR, may_end_in_folder=True)
    ids: list[int] = []
    try:
        with session.connect() as connection:
            for lot in add_all(connection, requests):
                ids += lot
                if not session.json:
                    say("\n".join(map(str, lot)))
    except AutodlError as error:
        if session.json:
            say_json({"ids": ids})
        if ids:
            complain(f"only {plural(len(ids), 'URL')} of {sum(len(r.urls) for r in requests)} could be queued")
        raise error
    if session.json:
        say_json({"ids": ids})
    return 0
