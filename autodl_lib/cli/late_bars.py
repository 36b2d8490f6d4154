"""Bars for what takes a while: a download that is over at once is a line, for which no library is loaded.

Runs as: the caller.  Talks to: the terminal, through bars.py as soon as that is there.
Invariants: what is on the screen at the end is the same as if the bars had been there from the begin.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from autodl_lib.cli.session import draws_colours, say
from autodl_lib.cli.table import STATE_COLOURS
from autodl_lib.cli.task_line import task_line
from autodl_lib.contract.states import SETTLED, TaskState

if TYPE_CHECKING:
    from autodl_lib.cli.bars import Bars
    from autodl_lib.contract.task import Task

_LATE_S = 0.15
"""From the first picture on."""
_STILL_S = 0.5
"""When bars come although nothing moves: most commands end before, with their last task."""


class LateBars:
    """A display that turns into bars when something is not settled after a moment."""

    tick_s = 0.1

    def __init__(self, *, failures: bool) -> None:
        self._failures = failures
        self._bars: Bars | None = None
        self._early: dict[int, Task] = {}
        self._first_mono: float | None = None

    def show(self, task: Task) -> None:
        if self._bars is not None:
            self._bars.show(task)
        else:
            self._early[task.id] = task

    def draw(self) -> None:
        if self._bars is None and self._is_late():
            self._begin()
        if self._bars is not None:
            self._bars.draw()

    def note(self, text: str) -> None:
        self._begin().note(text)

    def close(self) -> None:
        if self._bars is not None:
            self._bars.close()
            return
        for task in self._early.values():
            if task.state is TaskState.FINISHED or (self._failures and task.state in SETTLED):
                colour = STATE_COLOURS.get(task.state) if draws_colours() else None
                say(click.style(task_line(task), fg=colour) if colour else task_line(task))

    def _is_late(self) -> bool:
        now = time.monotonic()
        if self._first_mono is None:
            self._first_mono = now
        moves = any(task.state not in SETTLED for task in self._early.values())
        return now - self._first_mono >= (_LATE_S if moves else _STILL_S)

    def _begin(self) -> Bars:
        if self._bars is None:
            from autodl_lib.cli.bars import Bars

            self._bars = Bars(failures=self._failures)
            for task in self._early.values():
                self._bars.show(task)
        return self._bars
