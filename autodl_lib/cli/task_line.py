"""How a task is, in one line for people.

Runs as: the caller.  Talks to: nobody.
"""

from __future__ import annotations

import time

from autodl_lib.cli.text import clean, duration, name_of, percent, size, speed
from autodl_lib.contract.states import TaskState
from autodl_lib.contract.task import Task


def task_line(task: Task) -> str:
    """Say in one line how a task is."""
    head = f"{task.id} {task.state.value}"
    match task.state:
        case TaskState.FINISHED:
            return f"{head}  {clean(task.dest or '')} ({size(task.bytes_done)})"
        case TaskState.DOWNLOADING:
            total = f" of {size(task.bytes_total)} ({percent(task)})" if task.bytes_total is not None else ""
            eta = f", {duration(task.eta_s)} to go" if task.eta_s is not None else ""
            pace = f", {speed(task.speed_bps)}" if task.speed_bps else ""
            return f"{head}  {name_of(task)}  {size(task.bytes_done)}{total}{pace}{eta}"
        case TaskState.RETRYING:
            return f"{head}  {name_of(task)}{_when(task)}{_reason(task)}"
        case _:
            return f"{head}  {name_of(task)}{_reason(task)}"


def _reason(task: Task) -> str:
    return f": {clean(task.error.message)} ({clean(task.error.code)})" if task.error is not None else ""


def _when(task: Task) -> str:
    return f", next try in {duration(task.retry_at - time.time())}" if task.retry_at is not None else ""
