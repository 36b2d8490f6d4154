"""`autodl status`, `list`, `log`, `explain`: look, don't touch.

Runs as: the caller.  Talks to: the daemon through client.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click

from autodl_lib.cli.actors import actor_words
from autodl_lib.cli.command import make_command, request_command
from autodl_lib.cli.moments import since_option
from autodl_lib.cli.options import make_request, request_parameters
from autodl_lib.cli.session import Session, complain, draws_colours, say, say_json
from autodl_lib.cli.table import HEADINGS, fitted, key_values, tab_separated, task_cells
from autodl_lib.cli.text import clean, duration, moment, percent, size, speed, stamp
from autodl_lib.client.results import decoded, listed, log_from, task_from
from autodl_lib.contract.errors import ProtocolMismatch
from autodl_lib.contract.fields import MAX_INT
from autodl_lib.contract.requests import Explain, List, Log, Status
from autodl_lib.contract.task import Task

PAGE = 500
_LIST = "Show tasks, oldest first."


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    most = click.Option(
        ["most", "-n"], type=click.IntRange(1), metavar="N", help="show at most N tasks, the first ones"
    )
    return {
        "status": request_command("status", Status, _status),
        "list": make_command(
            "list",
            _LIST,
            [*request_parameters(List), since_option("only tasks that were added since then"), most],
            _list,
        ),
        "log": request_command("log", Log, _log),
        "explain": request_command("explain", Explain, _explain),
    }


def _status(session: Session, request: Status) -> None:
    result = session.call(request)
    if session.json:
        say_json(result)
    else:
        say(key_values(_status_rows(task_from(result))))


def _status_rows(task: Task) -> Iterator[tuple[str, str]]:
    yield "task", str(task.id)
    yield "state", task.state.value
    if task.error is not None:
        yield "error", clean(f"{task.error.message} ({task.error.code})")
    yield "url", clean(task.url)
    yield ("saved to", clean(task.dest)) if task.dest is not None else ("folder", clean(task.dir))
    yield (
        "done",
        f"{size(task.bytes_done)} of {size(task.bytes_total)} ({percent(task)})",
    )
    if task.speed_bps:
        yield "speed", f"{speed(task.speed_bps)}, {task.connections} connection(s), {duration(task.eta_s)} to go"
    if task.http_status is not None:
        yield "response", str(task.http_status)
    yield "owner", clean(f"{task.owner} (uid {task.uid})")
    yield "priority", str(task.priority)
    if task.label is not None:
        yield "label", clean(task.label)
    yield "attempts", str(task.attempts)
    for key, at in (
        ("created", task.created_at),
        ("started", task.started_at),
        ("finished", task.finished_at),
        ("next try", task.retry_at),
    ):
        if at is not None:
            yield key, moment(at)


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


def _log(session: Session, request: Log) -> None:
    result = session.call(request)
    if session.json:
        say_json(result)
        return
    for entry in log_from(result):
        detail = f"  {clean(entry.detail)}" if entry.detail else ""
        if entry.actor is not None:
            detail += f"  by {actor_words(entry.actor, entry.pid, entry.program)}"
        say(f"{stamp(entry.at)}  {clean(entry.event):<10} {clean(entry.state):<11}{detail}".rstrip())


def _explain(session: Session, request: Explain) -> None:
    result = session.call(request)
    if session.json:
        say_json(result)
    else:
        from autodl_lib.contract.replies import Explanation

        say(clean(decoded(Explanation, result).reason))
