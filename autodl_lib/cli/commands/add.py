"""`autodl add`, and what it shares with `autodl get`: turning the command line into requests.

Runs as: the caller.  Talks to: the daemon through client.
How it fails: when a request of a long list is refused, the ids before it have been printed and are queued.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import click

from autodl_lib.cli.command import described, make_command
from autodl_lib.cli.destination import folder_and_name
from autodl_lib.cli.options import make_request, request_parameters
from autodl_lib.cli.session import Session, complain, say, say_json
from autodl_lib.cli.text import plural
from autodl_lib.cli.url_input import check_urls, in_requests, read_urls, split_folder
from autodl_lib.client.connection import Connection
from autodl_lib.client.results import decoded
from autodl_lib.contract.errors import AutodlError
from autodl_lib.contract.replies import Ids
from autodl_lib.contract.requests import DEFAULT_DIR, Add

_NOTE = """The last argument is the folder to save to if it has no '://' and --dir is not given.

Prints the number of each new task, by which `autodl status`, `watch` and `cancel` know it."""


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    arguments = click.Argument(["arguments"], nargs=-1, metavar="[URL]... [DIR]")
    parameters = [arguments, *add_options(default_dir=DEFAULT_DIR)]
    return {"add": make_command("add", described(Add, _NOTE), parameters, _add)}


def add_options(*, default_dir: str) -> list[click.Parameter]:
    """Make the options of a request to add, and `--input-file`."""
    parameters = request_parameters(Add, skip=frozenset({"urls"}))
    for parameter in parameters:
        # The default is filled in later: whether --dir was given decides what the last argument is.
        if isinstance(parameter, click.Option) and parameter.name == "dir":
            parameter.default, parameter.show_default = None, False
            parameter.help = f"the folder to save to; it is made if need be [default: {default_dir}]"
    source = click.Option(
        ["input_file", "-i", "--input-file"], metavar="FILE", help="read URLs from a file, one a line; - is stdin"
    )
    return [*parameters, source]


def add_requests(values: Mapping[str, Any], *, default_dir: str, may_end_in_folder: bool) -> list[Add]:
    """Build the requests that a command line of `add` or `get` means.

    Raises: click.UsageError, BadUrl.
    """
    arguments, source = values["arguments"], values["input_file"]
    enough = len(arguments) > 1 or (bool(arguments) and source is not None)
    urls, folder = split_folder(arguments, may_end_in_folder=may_end_in_folder and enough and values["dir"] is None)
    check_urls(urls)
    if source is not None:
        urls += read_urls(source)
    if not urls:
        raise click.UsageError("which URL? Give one or more, or --input-file", click.get_current_context())
    if values["output"] is not None and len(urls) > 1:
        raise click.UsageError(
            "--output names the file of a single URL, there are several", click.get_current_context()
        )
    chosen = folder if folder is not None else values["dir"]
    save_dir, name = folder_and_name(chosen, values["output"], default=default_dir)
    first = make_request(Add, {**values, "urls": (), "dir": save_dir, "output": name})
    return [replace(first, urls=lot) for lot in in_requests(urls)]


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
