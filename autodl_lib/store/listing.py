"""Pages of tasks: along an index of what was asked for, a bounded number of steps at a time.

Runs as: the supervisor, on the loop's thread.  Talks to: sqlite3, the reader's connection.
Several lists that are each in the order of numbers (a user's tasks of one state, of one host) are merged as far as
all of them were read. What an index does not tell is looked up for each task on the way, so a page may be shorter
than asked, or empty, and still not be the last one.
Invariants: one page costs STEPS_LIMIT steps of an index at most, or some for each list where there are more lists.
Known limits: `since` goes by the order in which a user's tasks were added, as the clock had it then. Of a host that is
asked for without its port, PORTS_LIMIT ports are looked at.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from autodl_lib.contract.states import TaskState
from autodl_lib.contract.task import Task, TaskId, Uid
from autodl_lib.store.rows import task_view
from autodl_lib.store.statements import SQL

STEPS_LIMIT = 2000
PORTS_LIMIT = 100
_LEAST_STEPS = 10
_BEYOND = 2**63 - 1

_FORWARD = {name: SQL[name].replace("$wanted", SQL["wanted"]) for name in SQL if name.startswith("along_")}
_BACKWARD = {name: text.replace("ORDER BY id", "ORDER BY id DESC") for name, text in _FORWARD.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which tasks: those of some users, or (None) of all, with every property that is given here."""

    users: tuple[Uid, ...] | None
    states: tuple[TaskState, ...] = ()
    host: str | None = None
    label: str | None = None
    since: float | None = None
    newest_first: bool = False

    @property
    def is_all(self) -> bool:
        """Whether nothing is asked for but whose tasks."""
        return not self.states and self.host is None and self.label is None and self.since is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Tasks in order, and the number behind which the next page begins, None at the end."""

    tasks: list[Task]
    next: TaskId | None


@dataclass(frozen=True, slots=True)
class _Stream:
    """A list in the order of numbers: a statement, what it is bound to, and the numbers between which it is read."""

    statement: str
    bound: dict[str, Any]
    low: int
    high: int


def page_of(connection: sqlite3.Connection, selection: Selection, after: int, limit: int) -> Page:
    """Return the tasks behind the number `after` (0: from the beginning), at most `limit`."""
    connection.execute("BEGIN")  # one picture: else a task could be seen in two states
    try:
        ids, following = numbers_of(connection, selection, after, limit)
        rows = connection.execute(SQL["views"], (json.dumps(ids),)).fetchall()
    finally:
        connection.execute("COMMIT")
    rows.sort(key=lambda row: row[0], reverse=selection.newest_first)
    return Page(tasks=[task_view(row) for row in rows], next=following)


def numbers_of(
    connection: sqlite3.Connection, selection: Selection, after: int, limit: int
) -> tuple[list[TaskId], TaskId | None]:
    """Return the numbers of a page, and that behind which the next one begins."""
    streams = list(_streams(connection, selection, after))
    is_told = _is_told_by_index(selection)
    most = max(_LEAST_STEPS, STEPS_LIMIT // max(1, len(streams)))
    if is_told:
        most = min(most, limit + 1)
    statements = _BACKWARD if selection.newest_first else _FORWARD
    sign = -1 if selection.newest_first else 1
    found: list[TaskId] = []
    horizon: TaskId | None = None
    for stream in streams:
        place = {"low": stream.low, "high": stream.high, "limit": most, "all": is_told}
        rows = connection.execute(statements[stream.statement], {**stream.bound, **place}).fetchall()
        found += [number for number, is_wanted in rows if is_wanted]
        if len(rows) == most and (horizon is None or sign * rows[-1][0] < sign * horizon):
            horizon = rows[-1][0]
    if horizon is not None:
        found = [number for number in found if sign * number <= sign * horizon]
    found.sort(reverse=selection.newest_first)
    if len(found) > limit:
        return found[:limit], found[limit - 1]
    return found, horizon


def _is_told_by_index(selection: Selection) -> bool:
    """Return whether the index that is gone along tells all that was asked for."""
    if selection.users is None:
        return selection.is_all
    named = (selection.label is not None) + (selection.host is not None)
    return selection.since is None and named + bool(selection.states) <= 1


def _streams(connection: sqlite3.Connection, selection: Selection, after: int) -> Iterator[_Stream]:
    bound = {
        "states": json.dumps(selection.states) if selection.states else None,
        "host": selection.host,
        "label": selection.label,
        "since": selection.since,
    }
    low, high = (0, after or _BEYOND) if selection.newest_first else (after, _BEYOND)
    if selection.users is None:
        yield _Stream("along_numbers", bound, low, high)
        return
    for uid in selection.users:
        first = low
        if selection.since is not None:
            row = connection.execute(SQL["first_added"], (uid, selection.since)).fetchone()
            if row is None:
                continue
            first = max(low, row[0] - 1)
        for statement, key in _keys(connection, selection, uid):
            yield _Stream(statement, {**bound, "uid": uid, "key": key}, first, high)


def _keys(connection: sqlite3.Connection, selection: Selection, uid: Uid) -> Iterator[tuple[str, str]]:
    """Yield the lists of one user's tasks that hold what was asked for, each task once."""
    if selection.label is not None:
        yield "along_label", selection.label
    elif selection.host is not None:
        yield "along_host", selection.host
        named = {"uid": uid, "host": selection.host, "limit": PORTS_LIMIT}
        for (host,) in connection.execute(SQL["hosts_named"], named).fetchall():
            yield "along_host", host
    else:
        for state in selection.states or TaskState:
            yield "along_state", state.value
