"""`autodl add`: queue, and print the ids.

Runs as: the caller.  Talks to: the daemon through client.
How it fails: what is queued is told in any case: its ids are on stdout, or in the message that they can't be.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from autodl_lib.cli.add_parameters import add_parameters
from autodl_lib.cli.add_requests import add_requests
from autodl_lib.cli.command import described, make_command
from autodl_lib.cli.sending import Sending, spans
from autodl_lib.cli.session import OutputError, Session, complain, say, say_json
from autodl_lib.contract.errors import AutodlError
from autodl_lib.contract.requests.adding import DEFAULT_DIR, Add

_NOTE = """The last argument is the folder to save to if it has no '://' and --dir is not given. One that ends in
.meta4 or .metalink and is a file is read as with --metalink.

Prints the number of each new task, by which `autodl status`, `watch` and `cancel` know it. Of a
list that can't all be queued, the numbers of the tasks that are queued are printed all the same."""


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    arguments = click.Argument(["arguments"], nargs=-1, metavar="[URL|METALINK]... [DIR]")
    parameters = [arguments, *add_parameters(default_dir=DEFAULT_DIR)]
    return {"add": make_command("add", described(Add, _NOTE), parameters, _add)}


def _add(session: Session, **values: Any) -> int:
    sending = Sending(add_requests(values, default_dir=DEFAULT_DIR, may_end_in_folder=True))
    try:
        with session.connect() as connection:
            for ids in sending.answers(connection):
                if not session.json:
                    _print_lot(sending, ids)
    except AutodlError:
        if sending.ids:
            _print_what_is_queued(session, sending)
        if sending.cut_short:
            complain(sending.cut_short)
        raise
    except KeyboardInterrupt:
        if sending.ids:
            _print_what_is_queued(session, sending)
        complain(sending.interrupted)
        raise
    _print_end(session, sending)
    return 0


def _print_lot(sending: Sending, ids: list[int]) -> None:
    try:
        say("\n".join(map(str, ids)))
    except OutputError:
        # Nothing more is asked for; what has been will be in the message at the end.
        sending.stop()


def _print_end(session: Session, sending: Sending) -> None:
    """Write out what there is to print; if that fails, the error has the ids.

    Raises: OutputError, BrokenPipeError.
    """
    try:
        if session.json:
            say_json({"ids": sending.ids})
        sys.stdout.flush()
    except OutputError as error:
        raise OutputError(f"{error}; queued all the same: {spans(sending.ids)}") from None


def _print_what_is_queued(session: Session, sending: Sending) -> None:
    """Do as `_print_end`, where there is worse to tell."""
    try:
        _print_end(session, sending)
    except OutputError as error:
        complain(str(error))
