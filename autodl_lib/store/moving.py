"""Moving tasks along the transition table: one by what happened to it, or many by the same event.

Runs as: the supervisor, on the writer's thread.  Talks to: sqlite3.
Invariants: a task's state changes here alone: a compare-and-set along contract/states.py, and a row of history
for each event.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from autodl_lib.contract.errors import NoSuchTask, WrongState
from autodl_lib.contract.states import SETTLED, TaskEvent, TaskState, Want, next_state
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.store.rows import STATES, Change, Finish, Moved, columns_of, moved_one
from autodl_lib.store.statements import SQL

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
_FORGETS_IDENTITY = frozenset({TaskEvent.FINISH, TaskEvent.CANCEL, TaskEvent.CLEAR})
"""After any other event a later attempt looks first whether the file that was ready is there, or even in its place."""
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


def move_task(connection: sqlite3.Connection, task_id: TaskId, changes: Sequence[Change]) -> Moved:
    """Take one task along events, one after the other.

    What a later change does not say, an earlier one's word stands for. Nothing is moved where any of
    the events is not legal.

    Raises: NoSuchTask, WrongState.
    """
    row = connection.execute(SQL["task_state"], (task_id,)).fetchone()
    if row is None:
        raise NoSuchTask(f"no such task: {task_id}")
    old, uid = STATES[row[0]], Uid(row[1])
    now = time.time()
    new = old
    entries = []
    columns: dict[str, Any] = {}
    for change in changes:
        new = _next(task_id, new, change.event)
        entries.append(
            {"task_id": task_id, **_entry(change, new, now), "owner_uid": uid if _is_owned(change) else None}
        )
        columns = _columns(change, columns)
    bound = {**columns, **_bounds(old, new, now)}
    if connection.execute(SQL["apply"], {**bound, "id": task_id}).rowcount != 1:
        raise WrongState(f"task {task_id} changed at the same time; try again")
    connection.executemany(SQL["log_move"], entries)
    return moved_one(task_id, uid, old, new)


def move_tasks(connection: sqlite3.Connection, task_ids: Iterable[TaskId], change: Change) -> Iterator[Moved]:
    """Take tasks along one event, all or none, at the cost of some statements for all of them.

    Raises: NoSuchTask, WrongState.
    """
    wanted = set(task_ids)
    by_state: defaultdict[TaskState, defaultdict[Uid, list[TaskId]]] = defaultdict(lambda: defaultdict(list))
    for task_id, state, uid in connection.execute(SQL["task_states"], (json.dumps(list(wanted)),)):
        by_state[STATES[state]][Uid(uid)].append(task_id)
        wanted.discard(task_id)
    if wanted:
        raise NoSuchTask(f"no such task: {min(wanted)}")
    following = {old: _next(next(iter(users.values()))[0], old, change.event) for old, users in by_state.items()}
    now = time.time()
    for old, users in by_state.items():
        new = following[old]
        ids = json.dumps([task_id for mine in users.values() for task_id in mine])
        connection.execute(SQL["apply_all"], {**_columns(change, {}), **_bounds(old, new, now), "ids": ids})
        connection.execute(SQL["log_moves"], {**_entry(change, new, now), "owned": _is_owned(change), "ids": ids})
        for uid, mine in users.items():
            yield Moved(ids=tuple(mine), uid=uid, old=old, new=new, count=len(mine))


def finish_tasks(
    connection: sqlite3.Connection, finishes: Sequence[Finish]
) -> tuple[list[Moved], dict[TaskId, NoSuchTask | WrongState]]:
    """Take tasks, each named once, to their end; return those that moved, and why the others can't.

    One that was too quick to be seen running was so for a moment.
    """
    states = connection.execute(SQL["task_states"], (json.dumps([finish.task_id for finish in finishes]),))
    found = {task_id: (STATES[state], Uid(uid)) for task_id, state, uid in states}
    by_state: defaultdict[TaskState, list[Finish]] = defaultdict(list)
    moved: defaultdict[tuple[Uid, TaskState], list[TaskId]] = defaultdict(list)
    refused: dict[TaskId, NoSuchTask | WrongState] = {}
    for finish in finishes:
        if finish.task_id not in found:
            refused[finish.task_id] = NoSuchTask(f"no such task: {finish.task_id}")
            continue
        old, uid = found[finish.task_id]
        try:
            _next(finish.task_id, TaskState.DOWNLOADING if old is TaskState.ENQUEUED else old, TaskEvent.FINISH)
        except WrongState as error:
            refused[finish.task_id] = error
            continue
        by_state[old].append(finish)
        moved[uid, old].append(finish.task_id)
    now = time.time()
    for old, group in by_state.items():
        is_start = old is TaskState.ENQUEUED
        rows = json.dumps([_finish_row(finish, found[finish.task_id][1]) for finish in group])
        bound = {"rows": rows, "old_state": old.value, "attempts": int(is_start), "now": now}
        connection.execute(SQL["finish_all"], bound)
        if is_start:
            connection.execute(SQL["log_starts"], bound)
        connection.execute(SQL["log_finishes"], bound)
    return [_finished(uid, old, ids) for (uid, old), ids in moved.items()], refused


def _finished(uid: Uid, old: TaskState, ids: list[TaskId]) -> Moved:
    return Moved(ids=tuple(ids), uid=uid, old=old, new=TaskState.FINISHED, count=len(ids))


def _finish_row(finish: Finish, uid: Uid) -> list[Any]:
    name = finish.dest.rpartition("/")[2] or None
    return [finish.task_id, finish.dest, name, finish.size_bytes, finish.began_at, finish.detail, uid]


def _next(task_id: TaskId, state: TaskState, event: TaskEvent) -> TaskState:
    following = next_state(state, event)
    if following is None:
        raise WrongState(f"task {task_id} is {state}: it can't {event}")
    return following


def _is_owned(change: Change) -> bool:
    """Return whether the history of a task's owner shows an event."""
    return change.actor is not None or change.event in _ENDS


def _entry(change: Change, state: TaskState, now: float) -> dict[str, Any]:
    what = {"at": now, "event": change.event.value, "state": state.value, "detail": change.detail}
    return {**what, **columns_of(change.actor)}


def _bounds(old: TaskState, new: TaskState, now: float) -> dict[str, Any]:
    return {
        "old_state": old.value,
        "new_state": new.value,
        "headers": "[]" if new is TaskState.FINISHED else None,
        "options": "{}" if new is TaskState.FINISHED else None,
        "finished_at": now if new in SETTLED else None,
    }


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
        "keep_identity": event not in _FORGETS_IDENTITY and before.get("keep_identity", True),
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
