"""`autodl status`, `log`, `explain`: look at one task, don't touch.

Runs as: the caller.  Talks to: the daemon through client.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from autodl_lib.cli.actors import actor_words
from autodl_lib.cli.command import request_command
from autodl_lib.cli.session import Session, say, say_json
from autodl_lib.cli.table import key_values
from autodl_lib.cli.text import clean, duration, moment, percent, size, speed, stamp
from autodl_lib.client.results import decoded, log_from, task_from
from autodl_lib.contract.requests.one_task import Explain, Log, Status
from autodl_lib.contract.task import Task


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    return {
        "status": request_command("status", Status, _status),
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
        from autodl_lib.contract.replies.records import Explanation

        say(clean(decoded(Explanation, result).reason))
