"""Aligned text: key and value, and the table of tasks that fits the terminal.

Runs as: the caller.  Talks to: nobody; no I/O.
Invariants: cells are cleaned before they get here; nothing wraps on a terminal, nothing is cut off elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from autodl_lib.cli.text import duration, name_of, percent, shorten, size, speed, width
from autodl_lib.contract.states import TaskState
from autodl_lib.contract.task import Task

HEADINGS = ("ID", "STATE", "DONE", "SIZE", "SPEED", "ETA", "NAME")
_MIN_NAME_CELLS = 12
_EXPENDABLE = ("ETA", "SPEED", "SIZE", "DONE")
"""What goes first where the terminal is narrow."""

_RIGHT = frozenset({"ID", "DONE", "SIZE", "SPEED", "ETA"})
STATE_COLOURS: dict[TaskState, str] = {
    TaskState.DOWNLOADING: "cyan",
    TaskState.RETRYING: "yellow",
    TaskState.PAUSED: "yellow",
    TaskState.FINISHED: "green",
    TaskState.FAILED: "red",
    TaskState.CANCELLED: "magenta",
}


def key_values(rows: Iterable[tuple[str, str]], *, indent: int = 0) -> str:
    """Align keys and values, a pair a line."""
    pairs = list(rows)
    cells = max((width(key) for key, _ in pairs), default=0)
    return "\n".join(f"{' ' * indent}{key}{' ' * (cells - width(key))}  {value}" for key, value in pairs)


def task_cells(task: Task) -> tuple[str, ...]:
    """Return a task's row, in the order of HEADINGS."""
    return (
        str(task.id),
        task.state.value,
        percent(task),
        size(task.bytes_total if task.bytes_total is not None else task.bytes_done or None),
        speed(task.speed_bps),
        duration(task.eta_s),
        name_of(task),
    )


def tab_separated(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield rows for a program to read; a cleaned cell has no tab."""
    for row in rows:
        yield "\t".join(row)


def fitted(rows: Sequence[Sequence[str]], cells: int, *, colours: bool) -> Iterator[str]:
    """Yield a heading and the rows, none wider than `cells`."""
    widths = [max(width(heading), *(width(row[i]) for row in rows)) for i, heading in enumerate(HEADINGS)]
    shown = list(range(len(HEADINGS)))
    last = len(HEADINGS) - 1
    for heading in _EXPENDABLE:
        if _left_for_name(widths, shown, cells) >= _MIN_NAME_CELLS:
            break
        shown.remove(HEADINGS.index(heading))
    widths[last] = max(_left_for_name(widths, shown, cells), 1)
    for number, row in enumerate([HEADINGS, *rows]):
        line = "  ".join(_cell(row[i], widths[i], HEADINGS[i]) for i in shown).rstrip()
        yield _coloured(line, row[1]) if colours and number else line


def _left_for_name(widths: Sequence[int], shown: Sequence[int], cells: int) -> int:
    return cells - sum(widths[i] + 2 for i in shown[:-1])


def _cell(text: str, cells: int, heading: str) -> str:
    text = shorten(text, cells)
    padding = " " * (cells - width(text))
    return padding + text if heading in _RIGHT else text + padding


def _coloured(line: str, state: str) -> str:
    from click import style

    colour = STATE_COLOURS.get(TaskState(state))
    return line.replace(state, style(state, fg=colour), 1) if colour else line
