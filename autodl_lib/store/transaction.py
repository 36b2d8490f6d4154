"""What can be done to the queue inside one transaction.

Runs as: the supervisor, on the writer's thread.  Talks to: sqlite3.
Invariants: a task's state changes in `apply` (one task) and `clear` (many) alone; both are a
compare-and-set along contract/states.py and leave a row of history in the same transaction.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Any

from autodl_lib.contract.errors import NoSuchTask, WrongState
from autodl_lib.contract.states import SETTLED, TaskEvent, TaskState, Want, next_state
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.store.numbering import Numbering
from autodl_lib.store.rows import Actor, Change, Deed, Description, Moved, NewTask, SetRates, options_to_text
from autodl_lib.store.statements import SQL

RESPONSE_WINDOW_S = 600
_NAMED_MOVES = 10_000
"""Of so many tasks that move together, followers hear of each one."""

RESPONSE_BUCKET_S = 5

_KEEPS_ERROR = frozenset(
    {
        TaskEvent.DUE,
        TaskEvent.PAUSE,
        TaskEvent.RESUME,
        TaskEvent.INTERRUPT,
        TaskEvent.CANCEL,
        TaskEvent.CLEAR,
        TaskEvent.SET_URL,
    }
)
_KEEPS_IDENTITY = frozenset({TaskEvent.START, TaskEvent.INTERRUPT, TaskEvent.LOSE, TaskEvent.DUE, TaskEvent.SET_URL})
_BEGINS_ANEW = frozenset({TaskEvent.FINISH, TaskEvent.RETRY, TaskEvent.RESUME, TaskEvent.SET_URL})
"""After these, what failed before says nothing any more about how long a task has been stuck."""
_ENDS = frozenset({TaskEvent.FINISH, TaskEvent.FAIL})
"""The history shows these though nobody asked for them."""
_WANT_AFTER = {
    TaskEvent.PAUSE: Want.PAUSE,
    TaskEvent.CANCEL: Want.CANCEL,
    TaskEvent.RESUME: Want.RUN,
    TaskEvent.RETRY: Want.RUN,
}


class Transaction:
    """One open transaction; `moved` collects what changed, for counters and watchers."""

    def __init__(self, connection: sqlite3.Connection, numbering: Numbering) -> None:
        self._connection = connection
        self._numbering = numbering
        self.moved: list[Moved] = []

    def insert(self, tasks: Sequence[NewTask], actor: Actor | None = None) -> list[TaskId]:
        """Queue tasks and return their numbers, in order; those of one user ascend."""
        now = time.time()
        ids: list[TaskId] = []
        for uid, group in itertools.groupby(tasks, key=lambda task: task.uid):
            ids += self._numbering.take(uid, sum(1 for _ in group))
        rows = []
        events = []
        who = _columns_of(actor)
        for task_id, task in zip(ids, tasks, strict=True):
            state, want = (TaskState.PAUSED, Want.PAUSE) if task.paused else (TaskState.ENQUEUED, Want.RUN)
            rows.append(
                (
                    task_id,
                    task.uid,
                    task.owner,
                    task.url,
                    task.host,
                    task.dir,
                    task.output,
                    json.dumps(task.headers) if task.headers else "[]",
                    task.limit_rate_bps,
                    options_to_text(task.options),
                    task.on_conflict.value,
                    task.priority,
                    state.value,
                    want.value,
                    now,
                )
            )
            events.append((task_id, now, "add", state.value, None, task.uid, *who))
            self.moved.append(Moved(id=task_id, uid=task.uid, old=None, new=state))
        self._connection.executemany(SQL["insert_task"], rows)
        self._connection.executemany(SQL["insert_event"], events)
        return ids

    def state_of(self, task_id: TaskId, viewer: Uid | None) -> TaskState:
        """Return a task's state; `viewer` is the uid that asks, None for an administrator.

        Raises: NoSuchTask, also for another user's task.
        """
        row = self._connection.execute(SQL["task_state"], (task_id,)).fetchone()
        if row is None or (viewer is not None and row[1] != viewer):
            raise NoSuchTask(f"no such task: {task_id}")
        return TaskState(row[0])

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

        What a later change does not say, an earlier one's word stands for. Nothing is moved where any of
        the events is not legal.

        Raises: NoSuchTask, WrongState.
        """
        row = self._connection.execute(SQL["task_state"], (task_id,)).fetchone()
        if row is None:
            raise NoSuchTask(f"no such task: {task_id}")
        old, uid = TaskState(row[0]), Uid(row[1])
        now = time.time()
        new = old
        history = []
        columns: dict[str, Any] = {}
        for change in changes:
            following = next_state(new, change.event)
            if following is None:
                raise WrongState(f"task {task_id} is {new}: it can't {change.event}")
            new = following
            owner = uid if change.actor is not None or change.event in _ENDS else None
            entry = (task_id, now, change.event.value, new.value, change.detail, owner)
            history.append((*entry, *_columns_of(change.actor)))
            columns = _columns(change, columns)
        cursor = self._connection.execute(
            SQL["apply"],
            {
                **columns,
                "id": task_id,
                "old_state": old.value,
                "new_state": new.value,
                "headers": "[]" if new is TaskState.FINISHED else None,
                "options": "{}" if new is TaskState.FINISHED else None,
                "finished_at": now if new in SETTLED else None,
            },
        )
        if cursor.rowcount != 1:
            raise WrongState(f"task {task_id} changed at the same time; try again")
        self._connection.executemany(SQL["insert_event"], history)
        self.moved.append(Moved(id=task_id, uid=uid, old=old, new=new))
        return new

    def describe(self, task_id: TaskId, description: Description) -> None:
        """Record what a worker found out about a running task; no change of state, no history."""
        identity = description.identity
        self._connection.execute(
            SQL["describe"],
            {
                "id": task_id,
                "dir": description.dir,
                "name": description.name,
                "part": description.part,
                "bytes_done": description.bytes_done,
                "bytes_total": description.bytes_total,
                "http_status": description.http_status,
                "progressed": description.progressed,
                "inode": identity.inode if identity else None,
                "part_size_bytes": identity.size_bytes if identity else None,
                "mtime_ns": identity.mtime_ns if identity else None,
            },
        )

    def note(self, task_id: TaskId, state: TaskState, text: str) -> None:
        """Add a sentence to a task's history."""
        entry = (task_id, time.time(), "note", state.value, text, None)
        self._connection.execute(SQL["insert_event"], (*entry, *_columns_of(None)))

    def record(self, deed: Deed, actor: Actor) -> None:
        """Add a change that moves no task to the history."""
        entry = (deed.task_id, time.time(), deed.event, deed.state, deed.detail, deed.owner_uid)
        self._connection.execute(SQL["insert_event"], (*entry, *_columns_of(actor)))

    def want(self, task_id: TaskId, want: Want) -> None:
        """Record what the owner wants of a task that a worker still has."""
        self._connection.execute(SQL["set_want"], (want.value, task_id))

    def set_priority(self, task_id: TaskId, priority: int, actor: Actor | None = None) -> None:
        """Change a task's priority."""
        row = self._connection.execute(SQL["task_state"], (task_id,)).fetchone()
        if row is not None:
            self._connection.execute(SQL["set_priority"], (priority, task_id))
            state = TaskState(row[0])
            if actor is not None:
                deed = Deed(event="priority", owner_uid=Uid(row[1]), detail=f"{priority}", task_id=task_id, state=state)
                self.record(deed, actor)
            self.moved.append(Moved(id=task_id, uid=Uid(row[1]), old=state, new=state))  # for followers

    def forget_part(self, task_id: TaskId) -> None:
        """Record that nothing is left of a task's part file."""
        self._connection.execute(SQL["forget_part"], (task_id,))

    def clear(self, uid: Uid, leased: Iterable[TaskId], actor: Actor | None = None) -> int:
        """Drop a user's enqueued and retrying tasks but those that workers have; return how many."""
        count = 0
        for state in (TaskState.ENQUEUED, TaskState.RETRYING):
            bound: dict[str, Any] = {"uid": uid, "state": state.value, "except": json.dumps(list(leased))}
            named = self._connection.execute(SQL["cleared_ids"], {**bound, "limit": _NAMED_MOVES + 1}).fetchall()
            bound["now"] = time.time()
            bound |= zip(("actor_uid", "actor", "pid", "program"), _columns_of(actor), strict=True)
            self._connection.execute(SQL["log_clear"], bound)
            cleared = self._connection.execute(SQL["clear"], bound).rowcount
            if len(named) <= _NAMED_MOVES:
                self.moved += [Moved(id=row[0], uid=uid, old=state, new=TaskState.CLEARED) for row in named]
            else:
                self.moved.append(Moved(id=None, uid=uid, old=state, new=TaskState.CLEARED, count=cleared))
            count += cleared
        return count

    def enqueue_due(self, now: float, latest: float, limit: int) -> int:
        """Queue again the retrying tasks whose time has come, at most `limit`; return how many.

        One that is due after `latest` was postponed under a clock that was wrong: it is due, too.
        """
        due = self._connection.execute(SQL["due_tasks"], (now, latest, limit)).fetchall()
        for (task_id,) in due:
            self.apply(task_id, Change(event=TaskEvent.DUE))
        return len(due)

    def enqueue_network_down(self, limit: int) -> int:
        """Queue again, at most `limit`, the tasks that wait because there was no network; return how many."""
        waiting = self._connection.execute(SQL["waiting_for_network"], (limit,)).fetchall()
        for (task_id,) in waiting:
            self.apply(task_id, Change(event=TaskEvent.DUE, detail="the network is back"))
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
        return self._forget(self._connection.execute(SQL["settled_of_before"], (uid, row[0], limit)).fetchall())

    def forget_events(self, uid: Uid, keep: int, limit: int) -> int:
        """Forget the oldest entries of a user's history but `keep`, at most `limit`; return how many."""
        row = self._connection.execute(SQL["event_to_keep"], (uid, keep - 1)).fetchone()
        if row is None:
            return 0
        return self._connection.execute(SQL["forget_events_of"], (uid, row[0], limit)).rowcount

    def _forget(self, old: list[tuple[Any, ...]]) -> int:
        for task_id, uid, state, part in old:
            if part is not None:
                # Its part file goes first; the task itself another time.
                self.apply(task_id, Change(event=TaskEvent.CANCEL, detail="forgotten"))
                continue
            self._connection.execute(SQL["delete_events"], (task_id,))
            self._connection.execute(SQL["delete_task"], (task_id,))
            self.moved.append(Moved(id=task_id, uid=uid, old=TaskState(state), new=None))
        return len(old)

    def count_response(self, uid: Uid, code: int) -> None:
        """Count one answer of a server for the statistics of the last ten minutes."""
        bucket = int(time.time()) // RESPONSE_BUCKET_S
        self._connection.execute(SQL["add_responses"], (bucket, uid, str(code), 1))

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


def _columns_of(actor: Actor | None) -> tuple[int | None, str | None, int | None, str | None]:
    return (None,) * 4 if actor is None else (actor.uid, actor.name, actor.pid, actor.program)


def _columns(change: Change, before: dict[str, Any]) -> dict[str, Any]:
    """Return what an event writes to the task's row, on top of what the event before it does."""
    event = change.event
    error = change.error
    want = _WANT_AFTER.get(event)

    def known(name: str, value: Any) -> Any:
        return before.get(name) if value is None else value

    return {
        "want": known("want", want.value if want else None),
        "url": known("url", change.url),
        "host": known("host", change.host),
        "dir": known("dir", change.dir),
        "name": known("name", change.name),
        "part": known("part", change.part),
        "forget_part": change.forget_part or before.get("forget_part", False),
        "dest": known("dest", change.dest),
        "keep_identity": event in _KEEPS_IDENTITY and before.get("keep_identity", True),
        "bytes_done": known("bytes_done", change.bytes_done),
        "bytes_total": known("bytes_total", change.bytes_total),
        "attempts": before.get("attempts", 0) + (event is TaskEvent.START),
        "streak": 0 if event in (TaskEvent.RETRY, TaskEvent.SET_URL) else known("streak", change.streak),
        "stuck_since": known("stuck_since", change.stuck_since),
        "keep_stuck": event not in _BEGINS_ANEW and before.get("keep_stuck", True),
        "http_status": known("http_status", change.http_status),
        "keep_error": event in _KEEPS_ERROR and before.get("keep_error", True),
        "error_code": error.code if error else None,
        "error_message": error.message if error else None,
        "retry_at": change.retry_at,
        "started_at": known("started_at", change.started_at),
    }
