"""`autodl cancel`, `retry`, `priority`: steer single tasks.

Runs as: the caller.  Talks to: the daemon through client.
"""

from __future__ import annotations

import click

from autodl_lib.cli.command import request_command
from autodl_lib.cli.session import Session, say, say_json
from autodl_lib.client.results import decoded
from autodl_lib.contract.replies.tasks import Ids
from autodl_lib.contract.requests.tasks import Cancel, Priority, Retry


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
    result = session.call(request)
    if session.json:
        say_json(result)
        return
    done = "cancelled" if isinstance(request, Cancel) else "queued again"
    for task_id in decoded(Ids, result).ids:
        say(f"{task_id} {done}")


def _priority(session: Session, request: Priority) -> None:
    result = session.call(request)
    if session.json:
        say_json(result)
    else:
        say(f"{request.id} has priority {request.priority}")
