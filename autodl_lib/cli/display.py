"""What `get`, `watch` and `wait` show while tasks move: nothing, lines, JSON lines; bars are in late_bars.py.

Runs as: the caller.  Talks to: stdout.
Invariants: a display may be shown the same picture of a task twice (after a reconnection) and says
nothing new about it.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Protocol

from autodl_lib.cli.session import complain, draws_on_terminal, flush_to_readers, say
from autodl_lib.cli.task_line import task_line
from autodl_lib.cli.text import fraction
from autodl_lib.contract.codec import to_json
from autodl_lib.contract.states import SETTLED, TaskState
from autodl_lib.contract.task import Task

PROGRESS_LINE_S = 10.0
"""A task that gets no 10% further still shows a line after so long."""

_SHORTEST_S = 1.0


class Display(Protocol):
    """Shows tasks as they change."""

    tick_s: float
    """How often `draw` wants to be called at least."""

    def show(self, task: Task) -> None:
        """Take in a task as it is now."""

    def draw(self) -> None:
        """Bring what is on the screen up to date; called after each batch and each tick."""

    def note(self, text: str) -> None:
        """Say something that is about no task."""

    def close(self) -> None:
        """Leave the screen as it should stay."""


class Silent:
    """Shows nothing."""

    tick_s = 3600.0

    def show(self, task: Task) -> None:
        pass

    def draw(self) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class JsonLines(Silent):
    """A JSON object a line for each change."""

    tick_s = 2.0

    def show(self, task: Task) -> None:
        sys.stdout.write(json.dumps(to_json(task)) + "\n")

    def draw(self) -> None:
        flush_to_readers()


class Lines(Silent):
    """A line for each change of state and, where wanted, for each 10% of progress."""

    tick_s = 2.0

    def __init__(self, *, starts: bool, progress: bool, failures: bool) -> None:
        self._starts = starts
        self._progress = progress
        self._failures = failures
        self._said: dict[int, tuple[TaskState, int, float]] = {}

    def show(self, task: Task) -> None:
        now = time.monotonic()
        tenth = int((fraction(task) or 0) * 10)
        state, said_tenth, said_at = self._said.get(task.id, (None, 0, 0.0))
        if task.state is state:
            further = tenth > said_tenth and now - said_at >= _SHORTEST_S
            due = now - said_at >= PROGRESS_LINE_S
            if not (self._progress and task.state is TaskState.DOWNLOADING and (further or due)):
                return
        self._said[task.id] = (task.state, tenth, now)
        if self._wanted(task):
            say(task_line(task))

    def draw(self) -> None:
        flush_to_readers()

    def note(self, text: str) -> None:
        complain(text)

    def _wanted(self, task: Task) -> bool:
        if task.state is TaskState.FINISHED:
            return True
        return self._failures if task.state in SETTLED else self._starts


def choose_display(*, progress: bool, failures: bool) -> Display:
    """Return bars on a terminal, else lines."""
    if draws_on_terminal():
        from autodl_lib.cli.late_bars import LateBars

        return LateBars(failures=failures)
    return Lines(starts=True, progress=progress, failures=failures)
