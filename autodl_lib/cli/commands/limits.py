"""`autodl limit`, `set-url`: change how fast, and from where, tasks are downloaded.

Runs as: the caller.  Talks to: the daemon through client.
"""

from __future__ import annotations

import click

from autodl_lib.cli.command import request_command
from autodl_lib.cli.session import Session, say, say_json
from autodl_lib.cli.table import key_values
from autodl_lib.cli.text import clean, size
from autodl_lib.client.results import decoded, listed
from autodl_lib.contract.replies.limits import TaskLimit, UrlSet
from autodl_lib.contract.requests.limits import Limit, SetUrl


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    return {
        "limit": request_command(
            "limit", Limit, _limit, note="Of several limits the smallest counts: yours, the administrator's, a task's."
        ),
        "set-url": request_command("set-url", SetUrl, _set_url),
    }


def _limit(session: Session, request: Limit) -> None:
    result = session.call(request)
    if session.json:
        say_json(result)
        return
    tasks = [decoded(TaskLimit, task) for task in listed(result, "tasks")]
    rows = [(f"task {task.id}", _rate(task.limit_rate_bps)) for task in tasks]
    rows.append((f"user {clean(str(result.get('user')))}", _rate(result.get("user_bps"))))
    rows.append(("daemon", _rate(result.get("daemon_bps"))))
    say(key_values(rows))


def _set_url(session: Session, request: SetUrl) -> None:
    result = session.call(request)
    if session.json:
        say_json(result)
    else:
        done = decoded(UrlSet, result)
        say(f"{done.id} is {clean(done.state)}, with its new URL: {clean(done.next)}")


def _rate(rate_bps: object) -> str:
    return f"{size(rate_bps)}/s" if isinstance(rate_bps, int) and rate_bps else "no limit"
