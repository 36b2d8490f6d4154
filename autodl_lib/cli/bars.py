"""Live progress bars on a terminal, drawn with rich: a row a task, a summary below when there are many.

Runs as: the caller.  Talks to: the terminal.
Invariants: drawn at most ten times a second and never taller than the terminal; settled tasks become
ordinary lines above the bars and stay on the screen.
"""

from __future__ import annotations

import time
from collections import Counter

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autodl_lib.cli.table import STATE_COLOURS
from autodl_lib.cli.task_line import task_line
from autodl_lib.cli.text import clean, duration, name_of, percent, shorten, size, speed
from autodl_lib.contract.states import SETTLED, TaskState
from autodl_lib.contract.task import Task

_REDRAW_S = 0.1
_STILL_REDRAW_S = 1.0
_ORDER = {TaskState.DOWNLOADING: 0, TaskState.RETRYING: 1, TaskState.PAUSED: 2, TaskState.ENQUEUED: 3}


class Bars:
    """A display that owns the lower end of the terminal while it is open."""

    tick_s = _REDRAW_S

    def __init__(self, *, failures: bool) -> None:
        self._failures = failures
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stderr=False)
        self._tasks: dict[int, Task] = {}
        self._settled: dict[int, TaskState] = {}
        self._note = ""
        self._dirty = True
        self._drawn_mono = 0.0
        self._live.start()

    def show(self, task: Task) -> None:
        self._dirty = True
        self._note = ""
        if task.state not in SETTLED:
            self._settled.pop(task.id, None)
            self._tasks[task.id] = task
            return
        self._tasks.pop(task.id, None)
        if self._settled.get(task.id) is not task.state:
            self._settled[task.id] = task.state
            if self._failures or task.state is TaskState.FINISHED:
                self._console.print(Text(task_line(task), style=STATE_COLOURS.get(task.state, "")), soft_wrap=True)

    def draw(self) -> None:
        now = time.monotonic()
        moving = any(task.state is TaskState.DOWNLOADING and not task.bytes_total for task in self._tasks.values())
        rest_s = _REDRAW_S if self._dirty or moving else _STILL_REDRAW_S
        if now - self._drawn_mono < rest_s:
            return
        self._drawn_mono, self._dirty = now, False
        self._live.update(self._picture(), refresh=True)

    def note(self, text: str) -> None:
        self._note, self._dirty = text, True

    def close(self) -> None:
        self._live.update(Text(""), refresh=False)
        self._live.stop()

    def _picture(self) -> RenderableType:
        columns, lines = self._console.size
        room = max(lines - 3, 1)
        tasks = sorted(self._tasks.values(), key=lambda task: (_ORDER.get(task.state, 9), task.id))
        table = Table.grid(padding=(0, 1), expand=True)
        wide = columns >= 72
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        if wide:
            table.add_column(width=max(10, columns // 5))
        table.add_column(justify="right", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        if wide:
            table.add_column(justify="right", no_wrap=True)
            table.add_column(justify="right", no_wrap=True)
        for task in tasks[:room]:
            table.add_row(*_row(task, wide=wide, columns=columns))
        below = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in self._below(tasks)]
        return Group(table, *below)

    def _below(self, tasks: list[Task]) -> list[str]:
        lines = []
        if len(tasks) > 1:
            counts = Counter(task.state for task in tasks)
            total = speed(sum(task.speed_bps for task in tasks))
            lines.append(
                ", ".join(f"{counts[state]} {state.value}" for state in _ORDER if counts[state]) + f"; {total}"
            )
        elif not tasks:
            lines.append("nothing is waiting or running")
        elif tasks[0].state is TaskState.RETRYING:
            lines.append(task_line(tasks[0]))
        if self._note:
            lines.append(clean(self._note))
        return lines


def _row(task: Task, *, wide: bool, columns: int) -> list[RenderableType]:
    name = Text(name_of(task))
    if task.state is TaskState.DOWNLOADING:
        total = float(task.bytes_total) if task.bytes_total else None
        bar: RenderableType = ProgressBar(total=total, completed=task.bytes_done, pulse=total is None)
    else:
        bar = Text(_standing(task, columns // 5), style=STATE_COLOURS.get(task.state, "dim"), no_wrap=True)
    done = size(task.bytes_done) + (f"/{size(task.bytes_total)}" if task.bytes_total is not None else "")
    share = Text(percent(task) if task.state is TaskState.DOWNLOADING or wide else task.state.value)
    row: list[RenderableType] = [name, *([bar] if wide else []), share, Text(done)]
    return [*row, Text(speed(task.speed_bps)), Text(duration(task.eta_s))] if wide else row


def _standing(task: Task, cells: int) -> str:
    if task.state is TaskState.RETRYING and task.retry_at is not None:
        return shorten(f"retry in {duration(task.retry_at - time.time())}", cells)
    return task.state.value
