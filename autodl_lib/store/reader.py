"""Questions to the queue, answered from what has been committed.

Runs as: the supervisor, on the loop's thread.  Talks to: sqlite3, its own read-only connection.
Invariants: every question is bounded by an index and a limit; none walks all tasks, but `counts` at start.
"""

from __future__ import annotations

import heapq
import itertools
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence, Set

from autodl_lib.contract.replies.records import HistoryEntry, LogEntry
from autodl_lib.contract.states import TaskState
from autodl_lib.contract.task import Task, TaskId, Uid
from autodl_lib.store.listing import Page, Selection, numbers_of, page_of
from autodl_lib.store.rows import STATES, Leftover, SetRates, TaskSpec, history_entry, log_entry, task_spec, task_view
from autodl_lib.store.statements import SQL
from autodl_lib.store.transaction import RESPONSE_BUCKET_S, RESPONSE_WINDOW_S

LOG_LIMIT = 10_000
HOSTS_LIMIT = 1000
_CHUNK = 50

Place = tuple[int, TaskId]
"""Where a waiting task stands in its user's queue: its priority, negative, and its number. The lowest runs next."""

FIRST_PLACE: Place = (-(2**62), TaskId(0))
"""Before all."""


class Reader:
    """The questions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def task(self, task_id: TaskId, viewer: Uid | None = None) -> Task | None:
        """Return a task, or None where there is none that `viewer` may see (None: who may see all)."""
        row = self._connection.execute(SQL["view"], {"id": task_id, "viewer": viewer}).fetchone()
        return task_view(row) if row else None

    def tasks(self, task_ids: Sequence[TaskId]) -> list[Task]:
        """Return those of these tasks that exist, in this order."""
        rows = self._connection.execute(SQL["views"], (json.dumps(task_ids),)).fetchall()
        found = {row[0]: row for row in rows}
        return [task_view(found[task_id]) for task_id in task_ids if task_id in found]

    def saved_files(self, task_ids: Sequence[TaskId]) -> dict[TaskId, str]:
        """Return the paths of the files of those of these tasks that are finished."""
        return dict(self._connection.execute(SQL["saved_files"], (json.dumps(task_ids),)).fetchall())

    def states(self, task_ids: Sequence[TaskId], viewer: Uid | None = None) -> dict[TaskId, TaskState]:
        """Return the states of those of these tasks that exist and that `viewer` may see, as with `task`."""
        rows = self._connection.execute(SQL["task_states"], (json.dumps(task_ids),)).fetchall()
        return {task_id: STATES[state] for task_id, state, uid in rows if viewer in (None, uid)}

    def specs(self, task_ids: Iterable[TaskId], *, waiting: bool = False) -> dict[TaskId, TaskSpec]:
        """Return what a worker must know of each of these tasks that exists, or only of those that are to run next."""
        bound = {"ids": json.dumps(list(task_ids)), "waiting": waiting}
        rows = self._connection.execute(SQL["specs"], bound).fetchall()
        return {row[0]: task_spec(row) for row in rows}

    def page(self, selection: Selection, after: int, limit: int) -> Page:
        """Return selected tasks behind the number `after`, at most `limit`; see listing.py."""
        return page_of(self._connection, selection, after, limit)

    def numbers(self, selection: Selection, after: int, limit: int) -> tuple[list[TaskId], TaskId | None]:
        """Return the numbers of a page, and that behind which the next one begins."""
        return numbers_of(self._connection, selection, after, limit)

    def log(self, task_id: TaskId) -> tuple[LogEntry, ...]:
        """Return the newest LOG_LIMIT entries of a task's history, oldest first."""
        rows = self._connection.execute(SQL["events_of"], {"id": task_id, "limit": LOG_LIMIT}).fetchall()
        return tuple([log_entry(row) for row in rows])

    def history(self, uid: Uid | None, since: float, limit: int) -> list[HistoryEntry]:
        """Return changes and outcomes since an epoch second, newest first, of one user or (None) of all."""
        if uid is None:
            rows = self._connection.execute(SQL["history_of_all"], (since, limit)).fetchall()
        else:
            rows = self._connection.execute(SQL["history_of"], (uid, since, limit)).fetchall()
        return [history_entry(row) for row in rows]

    def owners_of_events(self) -> list[Uid]:
        """Return the users who have a history, and -1 where the daemon has."""
        return [Uid(row[0]) for row in self._connection.execute(SQL["owners_of_events"])]

    def setting(self, key: str) -> str | None:
        """Return a value that an earlier daemon kept, or None."""
        row = self._connection.execute(SQL["setting"], (key,)).fetchone()
        return str(row[0]) if row else None

    def waiting(self, uid: Uid, limit: int, behind: Place = FIRST_PLACE) -> list[tuple[int, TaskId, str, str]]:
        """Return a user's enqueued tasks behind a place, each with its own, host and folder, the next to run first."""
        bound = {"uid": uid, "limit": limit, "priority": -behind[0], "id": behind[1]}
        return self._connection.execute(SQL["waiting"], bound).fetchall()

    def waiting_elsewhere(self, uid: Uid, closed: Set[str], limit: int) -> list[tuple[TaskId, str, str]]:
        """Return a user's enqueued tasks of all hosts but the closed ones, with host and folder, best first.

        Costs a step for each host, not for each task of a closed one. Of a user's hosts, the first
        HOSTS_LIMIT are looked at, in the order of their names.
        """
        rows = self._connection.execute(SQL["waiting_heads"], {"uid": uid, "limit": HOSTS_LIMIT})
        heads = [row for row in rows if row[2] not in closed]
        merged = heapq.merge(*[self._waiting_from(uid, head) for head in heads])
        return [(task_id, host, folder) for _, task_id, host, folder in itertools.islice(merged, limit)]

    def _waiting_from(self, uid: Uid, head: tuple[int, TaskId, str, str]) -> Iterator[tuple[int, TaskId, str, str]]:
        """Yield a host's tasks, the next to run first; only where its first one is taken, more are read."""
        yield head
        offset = 1
        while rows := self._connection.execute(SQL["waiting_at"], (uid, head[2], _CHUNK, offset)).fetchall():
            yield from rows
            offset += len(rows)

    def waiting_before(self, task: Task) -> int:
        """Return how many enqueued tasks of the same user come before a task (10,000 at most)."""
        bound = {"uid": task.uid, "priority": task.priority, "id": task.id}
        return int(self._connection.execute(SQL["waiting_before"], bound).fetchone()[0])

    def next_due(self) -> float | None:
        """Return when the next retrying task is due, in epoch seconds, or None."""
        due = self._connection.execute(SQL["next_due"]).fetchone()[0]
        return None if due is None else float(due)

    def leftovers(self, limit: int, after: tuple[int, int] = (-1, -1)) -> list[Leftover]:
        """Return part files that settled tasks left behind: the next ones after an owner's uid and a task's number."""
        rows = self._connection.execute(SQL["leftovers"], (*after, limit)).fetchall()
        return [Leftover(uid=uid, id=task_id, dir=folder, part=part) for uid, task_id, folder, part in rows]

    def responses(self, uid: Uid | None) -> dict[str, int]:
        """Return answers per response code over the last ten minutes, of one user or (None) of all."""
        bucket = (int(time.time()) - RESPONSE_WINDOW_S) // RESPONSE_BUCKET_S + 1
        if uid is None:
            rows = self._connection.execute(SQL["responses_of_all"], (bucket,)).fetchall()
        else:
            rows = self._connection.execute(SQL["responses_of"], (bucket, uid)).fetchall()
        return dict(rows)

    def traffic(self, uid: Uid | None) -> int:
        """Return the bytes taken from the network, by one user or (None) by all."""
        if uid is None:
            return int(self._connection.execute(SQL["traffic_of_all"]).fetchone()[0])
        return int(self._connection.execute(SQL["traffic_of"], (uid,)).fetchone()[0])

    def traffic_of_day(self, uid: Uid, day: int) -> int:
        """Return the bytes that a user has taken on one UTC day, counted from 1970."""
        row = self._connection.execute(SQL["traffic_of_day"], (uid, day)).fetchone()
        return int(row[0]) if row else 0

    def holds(self) -> dict[Uid, float | None]:
        """Return whose queues are held, and until when."""
        return {Uid(uid): until for uid, until in self._connection.execute(SQL["holds"])}

    def rate_limits(self) -> dict[Uid, SetRates]:
        """Return the limits that were set while a daemon ran."""
        rows = self._connection.execute(SQL["rate_limits"])
        return {Uid(uid): SetRates(own_bps=own, ceiling_bps=ceiling) for uid, own, ceiling in rows}

    def limit_rates(self, task_ids: Iterable[TaskId]) -> dict[TaskId, int]:
        """Return the own limits of these tasks, in bytes a second, 0 for none."""
        return dict(self._connection.execute(SQL["limit_rates"], (json.dumps(list(task_ids)),)).fetchall())

    def counts(self) -> list[tuple[Uid, TaskState, int]]:
        """Return how many tasks each user has in each state; walks an index of all tasks."""
        rows = self._connection.execute(SQL["count_by_state"]).fetchall()
        return [(Uid(uid), STATES[state], count) for uid, state, count in rows]
