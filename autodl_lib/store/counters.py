"""How many tasks each user has in each state, kept in memory from what commits report.

Runs as: the supervisor, on the loop's thread.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from autodl_lib.contract.states import PENDING, TaskState
from autodl_lib.contract.task import Uid
from autodl_lib.store.rows import Moved


class Counters:
    """Counts by user and state."""

    def __init__(self, counts: Iterable[tuple[Uid, TaskState, int]]) -> None:
        self._by_uid: defaultdict[Uid, Counter[TaskState]] = defaultdict(Counter)
        for uid, state, count in counts:
            self._by_uid[uid][state] = count

    def record(self, moved: Iterable[Moved]) -> None:
        """Take in what a commit changed."""
        for move in moved:
            counter = self._by_uid[move.uid]
            if move.old is not None:
                counter[move.old] -= move.count
            if move.new is not None:
                counter[move.new] += move.count

    def of(self, uid: Uid | None) -> dict[TaskState, int]:
        """Return the count for each state, zeros too, of one user or (None) of all."""
        users = self._by_uid.values() if uid is None else [self._by_uid.get(uid, Counter())]
        return {state: sum(counter[state] for counter in users) for state in TaskState}

    def count(self, uid: Uid, state: TaskState) -> int:
        """Return one count."""
        counter = self._by_uid.get(uid)
        return counter[state] if counter else 0

    def users_with(self, states: Iterable[TaskState]) -> list[Uid]:
        """Return the users who have tasks in one of these states."""
        wanted = tuple(states)
        return [uid for uid, counter in self._by_uid.items() if any(counter[state] > 0 for state in wanted)]

    def pending(self) -> int:
        """Return how many tasks go on by themselves, of all users."""
        return sum(counter[state] for counter in self._by_uid.values() for state in PENDING)

    def retrying(self) -> int:
        """Return how many tasks wait for another try, of all users."""
        return sum(counter[TaskState.RETRYING] for counter in self._by_uid.values())
