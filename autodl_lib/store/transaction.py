"""What can be done to the queue inside one transaction.

Runs as: the supervisor, on the writer's thread.  Talks to: sqlite3.
Invariants: a task's state changes in moving.py alone, which leaves a row of history in the same transaction.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autodl_lib.contract.errors import NoSuchTask, WrongState
from autodl_lib.contract.states import TaskEvent, TaskState, Want
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.store.insertion import insert_tasks, is_like, together
from autodl_lib.store.moving import finish_tasks, move_task, move_tasks
from autodl_lib.store.numbering import Numbering
from autodl_lib.store.rows import (
    STATES,
    Actor,
    Change,
    Clearing,
    Deed,
    Description,
    Finish,
    Moved,
    NewTasks,
    SetRates,
    columns_of,
    description_row,
    moved_one,
)
from autodl_lib.store.statements import SQL

RESPONSE_WINDOW_S = 600
RESPONSE_BUCKET_S = 5
MOST_TOGETHER = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Insertion:
    """A job that queues tasks: those that come one after the other are one for the database."""

    lot: NewTasks
    actor: Actor | None

    def __call__(self, transaction: Transaction) -> list[TaskId]:
        """Queue the tasks by themselves."""
        return transaction.insert([self.lot], self.actor)


class Transaction:
    """One open transaction; `moved` collects what changed, for counters and watchers."""

    def __init__(self, connection: sqlite3.Connection, numbering: Numbering) -> None:
        self._connection = connection
        self._numbering = numbering
        self.moved: list[Moved] = []

    def insert(self, lots: Iterable[NewTasks], actor: Actor | None = None) -> list[TaskId]:
        """Queue tasks and return their numbers, in order; those of one user ascend."""
        ids: list[TaskId] = []
        for lot in lots:
            moved = insert_tasks(self._connection, self._numbering, lot, actor)
            self.moved.append(moved)
            ids += moved.ids
        return ids

    def insert_together(self, insertions: Sequence[Insertion]) -> list[list[TaskId]]:
        """Queue tasks of several jobs, as `insert` would one after the other; return the numbers of each."""
        numbers: list[list[TaskId]] = []
        for alike in _alike(insertions):
            ids = self.insert([together(job.lot for job in alike)], alike[0].actor)
            for job in alike:
                numbers.append(ids[: len(job.lot.urls)])
                del ids[: len(job.lot.urls)]
        return numbers

    def state_of(self, task_id: TaskId, viewer: Uid | None) -> TaskState:
        """Return a task's state; `viewer` is the uid that asks, None for an administrator.

        Raises: NoSuchTask, also for another user's task.
        """
        row = self._connection.execute(SQL["task_state"], (task_id,)).fetchone()
        if row is None or (viewer is not None and row[1] != viewer):
            raise NoSuchTask(f"no such task: {task_id}")
        return STATES[row[0]]

    def states_of(self, task_ids: Sequence[TaskId], viewer: Uid | None) -> dict[TaskId, TaskState]:
        """Return the states of tasks, in their order; `viewer` as with `state_of`.

        Raises: NoSuchTask, also for another user's task.
        """
        found = self.known_states_of(task_ids, viewer)
        for task_id in task_ids:
            if task_id not in found:
                raise NoSuchTask(f"no such task: {task_id}")
        return {task_id: found[task_id] for task_id in task_ids}

    def known_states_of(self, task_ids: Sequence[TaskId], viewer: Uid | None) -> dict[TaskId, TaskState]:
        """Return the states of those tasks that exist and that `viewer` may see."""
        rows = self._connection.execute(SQL["task_states"], (json.dumps(task_ids),))
        return {task_id: STATES[state] for task_id, state, uid in rows if viewer in (None, uid)}

    def owner_of(self, task_id: TaskId) -> Uid:
        """Return whose task it is.

        Raises: NoSuchTask.
        """
        row = self._connection.execute(SQL["task_state"], (task_id,)).fetchone()
        if row is None:
            raise NoSuchTask(f"no such task: {task_id}")
        return Uid(row[1])

    def want_of(self, task_id: TaskId) -> Want:
        """Return what a task's owner wants of it.

        Raises: NoSuchTask.
        """
        row = self._connection.execute(SQL["task_state"], (task_id,)).fetchone()
        if row is None:
            raise NoSuchTask(f"no such task: {task_id}")
        return Want(row[2])

    def apply(self, task_id: TaskId, *changes: Change) -> TaskState:
        """Move one task along the transition table, one event after the other, and return its new state.

        Raises: NoSuchTask, WrongState; see move_task.
        """
        moved = move_task(self._connection, task_id, changes)
        self.moved.append(moved)
        assert moved.new is not None
        return moved.new

    def apply_all(self, task_ids: Iterable[TaskId], change: Change) -> None:
        """Move tasks along the transition table by the same event, all or none.

        Raises: NoSuchTask, WrongState.
        """
        self.moved += move_tasks(self._connection, task_ids, change)

    def finish(self, finishes: Sequence[Finish]) -> dict[TaskId, NoSuchTask | WrongState]:
        """Record files that have their final names, of tasks named once each; return why some can't be."""
        moved, refused = finish_tasks(self._connection, finishes)
        self.moved += moved
        return refused

    def describe(self, descriptions: Mapping[TaskId, Description]) -> None:
        """Record what workers found out about running tasks; no change of state, no history."""
        rows = [description_row(task_id, description) for task_id, description in descriptions.items()]
        self._connection.execute(SQL["describe"], (json.dumps(rows),))

    def note(self, task_id: TaskId, state: TaskState, text: str) -> None:
        """Add a sentence to a task's history."""
        entry = {"task_id": task_id, "at": time.time(), "event": "note", "state": state.value, "detail": text}
        self._connection.execute(SQL["log_move"], {**entry, "owner_uid": None, **columns_of(None)})

    def record(self, deed: Deed, actor: Actor) -> None:
        """Add a change that moves no task to the history."""
        entry = {"task_id": deed.task_id, "at": time.time(), "event": deed.event, "state": deed.state}
        about = {"detail": deed.detail, "owner_uid": deed.owner_uid}
        self._connection.execute(SQL["log_move"], {**entry, **about, **columns_of(actor)})

    def want(self, task_id: TaskId, want: Want) -> None:
        """Record what the owner wants of a task that a worker still has."""
        self._connection.execute(SQL["set_want"], (want.value, task_id))

    def set_priority(self, task_id: TaskId, priority: int, actor: Actor | None = None) -> None:
        """Change a task's priority."""
        row = self._connection.execute(SQL["task_state"], (task_id,)).fetchone()
        if row is not None:
            self._connection.execute(SQL["set_priority"], (priority, task_id))
            state = STATES[row[0]]
            if actor is not None:
                deed = Deed(event="priority", owner_uid=Uid(row[1]), detail=f"{priority}", task_id=task_id, state=state)
                self.record(deed, actor)
            self.moved.append(moved_one(task_id, Uid(row[1]), state, state))  # for followers

    def forget_part(self, task_id: TaskId) -> None:
        """Record that nothing is left of a task's part file."""
        self._connection.execute(SQL["forget_part"], (task_id,))

    def last_clearable(self, uid: Uid) -> int:
        """Return the highest number of a user's tasks that `clear` would drop, 0 where there is none."""
        return int(self._connection.execute(SQL["last_clearable"], {"uid": uid}).fetchone()[0])

    def clear(self, uid: Uid, scope: Clearing, actor: Actor | None = None) -> int:
        """Drop some of a user's enqueued and retrying tasks, the next to run first; return how many, 0 at the end."""
        bound = {"uid": uid, "last": scope.last, "leased": json.dumps(list(scope.leased)), "limit": scope.limit}
        ids = [row[0] for row in self._connection.execute(SQL["clearable"], bound)]
        if len(ids) < scope.limit:
            ids += [
                row[0]
                for row in self._connection.execute(
                    SQL["clearable_retrying"], {**bound, "limit": scope.limit - len(ids)}
                )
            ]
        self.apply_all(ids, Change(event=TaskEvent.CLEAR, actor=actor))
        return len(ids)

    def enqueue_due(self, now: float, latest: float, limit: int) -> int:
        """Queue again the retrying tasks whose time has come, at most `limit`; return how many.

        One that is due after `latest` was postponed under a clock that was wrong: it is due, too, `limit` at a time.
        """
        bound = {"now": now, "latest": latest, "limit": limit}
        due = self._connection.execute(SQL["due_tasks"], bound).fetchall()
        self.apply_all([row[0] for row in due], Change(event=TaskEvent.DUE))
        return len(due)

    def enqueue_network_down(self, limit: int) -> int:
        """Queue again, at most `limit`, the tasks that wait because there was no network; return how many."""
        waiting = self._connection.execute(SQL["waiting_for_network"], (limit,)).fetchall()
        self.apply_all([row[0] for row in waiting], Change(event=TaskEvent.DUE, detail="the network is back"))
        return len(waiting)

    def recover(self) -> int:
        """After a start: give back what the last daemon had running; return how many tasks that were."""
        running = self._connection.execute(SQL["downloading_tasks"]).fetchall()
        unwanted = dict(self._connection.execute(SQL["unwanted_tasks"]).fetchall())
        for task_id, want in {**{task_id: Want.RUN.value for task_id, _ in running}, **unwanted}.items():
            match Want(want):
                case Want.RUN:
                    self.apply(task_id, Change(event=TaskEvent.INTERRUPT, detail="the daemon was interrupted"))
                case Want.PAUSE:
                    self.apply(task_id, Change(event=TaskEvent.PAUSE))
                case Want.CANCEL:
                    self.apply(task_id, Change(event=TaskEvent.CANCEL))
        return len(running)

    def forget_settled(self, before: float, limit: int) -> int:
        """Forget tasks that were settled before an epoch second, with their history, at most `limit`."""
        return self._forget(self._connection.execute(SQL["settled_before"], (before, limit)).fetchall())

    def forget_settled_of(self, uid: Uid, keep: int, limit: int) -> int:
        """Forget a user's oldest settled tasks but `keep`, at most `limit`; return how many."""
        row = self._connection.execute(SQL["settled_too_many"], (uid, keep)).fetchone()
        if row is None:
            return 0
        bound = {"uid": uid, "at": row[0], "row": row[1], "limit": limit}
        return self._forget(self._connection.execute(SQL["settled_of_before"], bound).fetchall())

    def forget_events(self, uid: Uid, keep: int, limit: int) -> int:
        """Forget the oldest entries of a user's history but `keep`, at most `limit`; return how many."""
        row = self._connection.execute(SQL["event_to_keep"], (uid, keep - 1)).fetchone()
        if row is None:
            return 0
        return self._connection.execute(SQL["forget_events_of"], (uid, row[0], limit)).rowcount

    def _forget(self, old: list[tuple[Any, ...]]) -> int:
        # A part file goes first; the task itself another time.
        with_part = [row[0] for row in old if row[3] is not None]
        self.apply_all(with_part, Change(event=TaskEvent.CANCEL, detail="forgotten"))
        gone: defaultdict[tuple[Uid, TaskState], list[TaskId]] = defaultdict(list)
        for task_id, uid, state, part in old:
            if part is None:
                gone[uid, STATES[state]].append(task_id)
        for (uid, before), ids in gone.items():
            bound = (json.dumps(ids),)
            self._connection.execute(SQL["delete_events"], bound)
            self._connection.execute(SQL["delete_tasks"], bound)
            self.moved.append(Moved(ids=tuple(ids), uid=uid, old=before, new=None, count=len(ids)))
        return len(old)

    def count_responses(self, uid: Uid, code: int, count: int) -> None:
        """Count answers of servers for the statistics of the last ten minutes."""
        bucket = int(time.time()) // RESPONSE_BUCKET_S
        self._connection.execute(SQL["add_responses"], (bucket, uid, str(code), count))

    def forget_responses(self) -> None:
        """Drop counters of answers that are older than the window."""
        bucket = (int(time.time()) - 2 * RESPONSE_WINDOW_S) // RESPONSE_BUCKET_S
        self._connection.execute(SQL["forget_responses"], (bucket,))

    def count_traffic(self, uid: Uid, received_bytes: int) -> None:
        """Add bytes taken from the network to a user's account of the day."""
        self._connection.execute(SQL["add_traffic"], (uid, int(time.time()) // 86400, received_bytes))

    def set_rates(self, uid: Uid, rates: SetRates) -> None:
        """Record the limits that were set for a user, or for the daemon."""
        self._connection.execute(SQL["set_rate_limit"], (uid, rates.own_bps, rates.ceiling_bps))

    def set_limit_rate(self, task_id: TaskId, limit_rate_bps: int) -> None:
        """Change a task's own limit."""
        self._connection.execute(SQL["set_limit_rate"], (limit_rate_bps, task_id))

    def keep_setting(self, key: str, value: str | None) -> None:
        """Keep a value for the next daemon, or (None) drop it."""
        if value is None:
            self._connection.execute(SQL["drop_setting"], (key,))
        else:
            self._connection.execute(SQL["keep_setting"], (key, value))

    def hold(self, uid: Uid, until: float | None) -> None:
        """Hold a user's queue until an epoch second, or until it is lifted (None)."""
        self._connection.execute(SQL["set_hold"], (uid, until))

    def lift_hold(self, uid: Uid) -> None:
        """Let a user's queue run again."""
        self._connection.execute(SQL["lift_hold"], (uid,))


def _alike(insertions: Sequence[Insertion]) -> Iterator[list[Insertion]]:
    """Yield jobs that follow each other and differ in their URLs alone, in lots of MOST_TOGETHER tasks or one job."""
    lot: list[Insertion] = []
    tasks_num = 0
    for job in insertions:
        tasks_num += len(job.lot.urls)
        if lot and (tasks_num > MOST_TOGETHER or job.actor != lot[0].actor or not is_like(job.lot, lot[0].lot)):
            yield lot
            lot, tasks_num = [], len(job.lot.urls)
        lot.append(job)
    if lot:
        yield lot
