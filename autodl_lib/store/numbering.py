"""Which numbers new tasks get: short, never used twice, ascending for each user, and telling nobody about others.

Runs as: the supervisor, on the writer's thread.  Talks to: sqlite3.
A daemon of one user counts 1, 2, 3. One of many users gives each user a series of their own: the last three digits
are the series, drawn at random, what stands before them counts that user's tasks: 10417, 11417, 12417. So a number
says how many tasks its owner has had, and nothing of anybody else's. root, who sees everything, counts 1 to 9999
and goes on with the numbers that end in 900 to 999, which are no user's.
Invariants: what was given out is recorded in the same transaction as the tasks that have it.
Known limits: from the 901st user on, users share series, and can see of each other how many numbers are taken.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable

from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.store.statements import SQL

STEP = 1000
SERIES_NUM = 900
FIRST_OF_USERS = 10 * STEP
_PLAIN = -1
_ROOT = Uid(0)


class Numbering:
    """Gives numbers out."""

    def __init__(self, connection: sqlite3.Connection, *, separate: bool, draw: Callable[[int], int]) -> None:
        """`separate`: each user has a series; `draw` returns a random number below its argument."""
        self._connection = connection
        self._separate = separate
        self._draw = draw
        self._series: dict[Uid, int] = {}

    def take(self, uid: Uid, count: int) -> list[TaskId]:
        """Return the next numbers of a user, ascending."""
        series = self._series_of(uid) if self._separate and uid != _ROOT else _PLAIN
        row = self._connection.execute(SQL["last_number"], (series,)).fetchone()
        last = row[0] if row else self._floor()
        if not count:
            return []
        numbers = [self._next(series, last)]
        step = STEP if series != _PLAIN else 1
        if series != _PLAIN or not self._separate:
            numbers = list(range(numbers[0], numbers[0] + count * step, step))
        while len(numbers) < count:
            numbers.append(self._next(series, numbers[-1]))
        self._connection.execute(SQL["set_last_number"], (series, numbers[-1]))
        return [TaskId(number) for number in numbers]

    def _next(self, series: int, last: int) -> int:
        if series != _PLAIN:
            following = max(last - last % STEP, FIRST_OF_USERS) + series
            return following if following > last else following + STEP
        following = last + 1
        if self._separate and following >= FIRST_OF_USERS and following % STEP < SERIES_NUM:
            return following - following % STEP + SERIES_NUM
        return following

    def _series_of(self, uid: Uid) -> int:
        known = self._series.get(uid)
        if known is not None:
            return known
        row = self._connection.execute(SQL["series_of_user"], (uid,)).fetchone()
        if row is not None:
            # Not when it is drawn: that transaction may come to nothing.
            self._series[uid] = int(row[0])
            return self._series[uid]
        taken = {series for (series,) in self._connection.execute(SQL["all_series"])}
        free = [series for series in range(SERIES_NUM) if series not in taken] or list(range(SERIES_NUM))
        series = free[self._draw(len(free))]
        self._connection.execute(SQL["set_series_of_user"], (uid, series))
        return series

    def _floor(self) -> int:
        """Return where a new series begins: behind what an older version has given to whoever asked."""
        row = self._connection.execute(SQL["numbers_before_series"]).fetchone()
        return int(row[0]) if row else 0


def random_draw(below: int) -> int:
    """Return a number that nobody can guess."""
    return secrets.randbelow(below)
