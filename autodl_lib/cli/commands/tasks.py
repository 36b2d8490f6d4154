"""`autodl cancel`, `retry`, `priority`: steer single tasks.

Runs as: the caller.  Talks to: the daemon through client.
"""

from __future__ import annotations

from dataclasses import replace

import click

from autodl_lib.cli.command import request_command
from autodl_lib.cli.session import Session, say, say_json
from autodl_lib.client.results import decoded
from autodl_lib.contract.replies.tasks import Ids
from autodl_lib.contract.requests.tasks import Cancel, Priority, Retry
from autodl_lib.contract.requests.terms import MAX_IDS


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    return {
        "cancel": request_command(
            "cancel", Cancel, _steer, note="`autodl retry` starts one again, from the beginning."
        ),
        "retry": request_command("retry", Retry, _steer),
        # A negative number must not be taken for an option.
        "priority": request_command("priority", Priority, _priority, ignore_unknown_options=True),
    }


def _steer(session: Session, request: Cancel | Retry) -> None:
    done = "cancelled" if isinstance(request, Cancel) else "queued again"
    steered: list[int] = []
    for begin in range(0, len(request.ids), MAX_IDS):
        ids = decoded(Ids, session.call(replace(request, ids=request.ids[begin : begin + MAX_IDS]))).ids
        steered += ids
        if not session.json:
            for task_id in ids:
                say(f"{task_id} {done}")
    if session.json:
        say_json({"ids": steered})


def _priority(session: Session, request: Priority) -> None:
    result = session.call(request)
    if session.json:
        say_json(result)
    else:
        say(f"{request.id} has priority {request.priority}")
