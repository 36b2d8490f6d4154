"""`autodl pause`, `resume`, `clear`, `max-tasks`: steer the queue as a whole (pause and resume: or tasks of it).

Runs as: the caller.  Talks to: the daemon through client.
"""

from __future__ import annotations

import click

from autodl_lib.cli.command import request_command
from autodl_lib.cli.session import Session, say, say_json
from autodl_lib.cli.text import moment, plural
from autodl_lib.client.results import decoded
from autodl_lib.contract.replies.queue import Count, Hold, MaxTasksNum
from autodl_lib.contract.replies.tasks import Ids
from autodl_lib.contract.requests.queue import Clear, MaxTasks, Pause, Resume


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    return {
        "pause": request_command("pause", Pause, _pause, note="Without --id, running downloads go on to their end."),
        "resume": request_command("resume", Resume, _resume),
        "clear": request_command("clear", Clear, _clear),
        "max-tasks": request_command("max-tasks", MaxTasks, _max_tasks),
    }


def _pause(session: Session, request: Pause) -> None:
    result = session.call(request)
    if session.json:
        say_json(result)
    elif request.ids:
        for task_id in decoded(Ids, result).ids:
            say(f"{task_id} paused; `autodl resume --id {task_id}` lets it go on")
    else:
        hold = decoded(Hold, result)
        until = hold.until
        if not hold.held:
            say("new downloads are not held")
            return
        say(f"no new downloads until {moment(until) + ', or ' if until is not None else ''}`autodl resume`")


def _resume(session: Session, request: Resume) -> None:
    result = session.call(request)
    if session.json:
        say_json(result)
    elif request.ids:
        for task_id in decoded(Ids, result).ids:
            say(f"{task_id} goes on")
    else:
        hold = decoded(Hold, result)
        say("the queue is still held by an administrator" if hold.held else "new downloads are started again")
        if hold.paused_tasks:
            say(f"{plural(hold.paused_tasks, 'task')} paused by number: see `autodl list -s paused`")


def _clear(session: Session, request: Clear) -> None:
    result = session.call(request)
    if session.json:
        say_json(result)
    else:
        say(f"dropped {plural(decoded(Count, result).cleared, 'task')}")


def _max_tasks(session: Session, request: MaxTasks) -> None:
    result = session.call(request)
    if session.json:
        say_json(result)
    else:
        say(str(decoded(MaxTasksNum, result).max_tasks_num))
