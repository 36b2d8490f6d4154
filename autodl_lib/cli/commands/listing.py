"""`autodl list`: look at many tasks, a page at a time.

Runs as: the caller.  Talks to: the daemon through client.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click

from autodl_lib.cli.command import make_command
from autodl_lib.cli.moments import since_option
from autodl_lib.cli.options import Whole, make_request, request_parameters
from autodl_lib.cli.session import Session, complain, draws_colours, say, say_json
from autodl_lib.cli.table import HEADINGS, fitted, tab_separated, task_cells
from autodl_lib.client.results import listed, task_from
from autodl_lib.contract.errors import ProtocolMismatch
from autodl_lib.contract.fields import MAX_INT
from autodl_lib.contract.requests.overviews import List

PAGE = 500
_DESCRIPTION = "Show tasks, oldest first."


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    most = click.Option(["most", "-n"], type=Whole(1), metavar="N", help="show at most N tasks, the first ones")
    parameters = [*request_parameters(List), since_option("only tasks that were added since then"), most]
    return {"list": make_command("list", _DESCRIPTION, parameters, _list)}


def _list(session: Session, most: int | None, **values: Any) -> None:
    request = make_request(List, values)
    pages = _pages(session, request, most)
    if session.json:
        say_json({"tasks": [task for page in pages for task in page]})
        return
    terminal = sys.stdout.isatty()
    shown = 0
    for page in pages:
        rows = [task_cells(task_from(task)) for task in page]
        if rows and terminal:
            import shutil

            cells = shutil.get_terminal_size().columns
            lines = fitted(rows, cells, colours=draws_colours())
            if shown:
                next(lines)
        else:
            lines = tab_separated(rows if shown or not rows else [HEADINGS, *rows])
        for line in lines:
            say(line)
        shown += len(rows)
    if not shown:
        complain("no tasks" + _among(request))


def _among(request: List) -> str:
    if request.host is None and request.label is None and request.since is None:
        return " in this state" if request.states else ""
    return " that fit"


def _pages(session: Session, request: List, most: int | None) -> Iterator[list[dict[str, Any]]]:
    left = most
    with session.connect() as connection:
        while True:
            limit = PAGE if left is None else min(PAGE, left)
            result = connection.call(replace(request, limit=limit))
            tasks = listed(result, "tasks")
            yield tasks
            following = result.get("next")
            if left is not None:
                left -= len(tasks)
            if following is None or (left is not None and left <= 0):
                return
            if type(following) is not int or not _is_further(following, request):
                raise ProtocolMismatch("the daemon's pages of tasks don't go forward")
            request = replace(request, after=following)


def _is_further(following: int, request: List) -> bool:
    return 0 < following < (request.after or MAX_INT + 1) if request.reverse else following > request.after
