"""What the store hands out and takes: rows of the database as dataclasses.

Runs as: the supervisor.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from autodl_lib.contract.codec import decode_fields, to_json
from autodl_lib.contract.replies.records import HistoryEntry, LogEntry
from autodl_lib.contract.states import TaskEvent, TaskState
from autodl_lib.contract.task import OnConflict, Task, TaskError, TaskId, Uid
from autodl_lib.contract.transfer_options import NO_OPTIONS, TransferOptions
from autodl_lib.contract.urls import redact_url
from autodl_lib.contract.worker_messages import FileIdentity

STATES = {state.value: state for state in TaskState}
"""To look them up takes a fifth of the time of a call of the class."""

_ON_CONFLICT = {way.value: way for way in OnConflict}


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who asked for a change, and from which process; `program` is None where the process had gone."""

    uid: Uid
    name: str
    pid: int
    program: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """A change that somebody asked for, for the history: whose task or queue (`task_id` 0: the whole queue)."""

    event: str
    owner_uid: Uid
    detail: str
    task_id: TaskId = TaskId(0)
    state: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTasks:
    """Tasks to be queued that differ in their URLs alone; `hosts` are those of the URLs."""

    uid: Uid
    owner: str
    urls: tuple[str, ...]
    hosts: tuple[str, ...]
    dir: str
    output: str | None
    headers: tuple[str, ...]
    limit_rate_bps: int
    on_conflict: OnConflict
    priority: int
    paused: bool
    label: str | None = None
    options: TransferOptions = NO_OPTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """What a worker must know of a task, and what deciding about a retry takes."""

    id: TaskId
    uid: Uid
    url: str
    dir: str
    output: str | None
    headers: tuple[str, ...]
    limit_rate_bps: int
    on_conflict: OnConflict
    name: str | None
    part: str | None
    identity: FileIdentity | None
    bytes_done: int
    streak: int
    host: str
    stuck_since: float | None = None
    options: TransferOptions = NO_OPTIONS
    created_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRates:
    """What was set for a user while the daemon ran, by themselves and by an administrator; 0 is none."""

    own_bps: int = 0
    ceiling_bps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A part file that a settled task left behind."""

    uid: Uid
    id: TaskId
    dir: str
    part: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An event that moves a task, and what became known with it; None leaves a column as it is.

    `host` is that of a new `url`; `stuck_since` is when it began to fail without progress; `actor` who asked for it.
    """

    event: TaskEvent
    actor: Actor | None = None
    detail: str | None = None
    dir: str | None = None
    name: str | None = None
    part: str | None = None
    forget_part: bool = False
    dest: str | None = None
    url: str | None = None
    host: str | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None
    http_status: int | None = None
    error: TaskError | None = None
    retry_at: float | None = None
    started_at: float | None = None
    streak: int | None = None
    stuck_since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clearing:
    """What one step of `clear` drops: tasks up to number `last`, but those that workers have, at most `limit`."""

    last: int
    leased: Collection[TaskId]
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a worker found out about a running task that does not change its state.

    `progressed`: more is there than was known, so it has not failed in vain.
    """

    name: str
    part: str | None
    bytes_done: int
    bytes_total: int | None
    http_status: int | None
    identity: FileIdentity | None
    progressed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """A task whose file has its final name: `dest` is the file's path, `began_at` when the task was handed out."""

    task_id: TaskId
    dest: str
    size_bytes: int
    began_at: float
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """`count` tasks of a user have gone from `old` (None: just queued) to `new` (None: forgotten).

    `ids` are the tasks, () where a statement moved too many to name them; `priority` is that of new ones, whose numbers
    ascend.
    """

    ids: tuple[TaskId, ...]
    uid: Uid
    old: TaskState | None
    new: TaskState | None
    count: int
    priority: int | None = None


def moved_one(task_id: TaskId, uid: Uid, old: TaskState | None, new: TaskState | None) -> Moved:
    """Return the move of one task."""
    return Moved(ids=(task_id,), uid=uid, old=old, new=new, count=1)


def columns_of(actor: Actor | None) -> dict[str, int | str | None]:
    """Return who asked for a change as the history keeps it."""
    if actor is None:
        return {"actor_uid": None, "actor": None, "pid": None, "program": None}
    return {"actor_uid": actor.uid, "actor": actor.name, "pid": actor.pid, "program": actor.program}


def description_row(task_id: TaskId, description: Description) -> list[Any]:
    """Return a row of the statement `describe`."""
    identity = description.identity
    known = [description.name, description.part, description.bytes_done, description.bytes_total]
    of_part = [None] * 3 if identity is None else [identity.inode, identity.size_bytes, identity.mtime_ns]
    return [task_id, *known, description.http_status, description.progressed, *of_part]


def options_to_text(options: TransferOptions) -> str:
    """Return options as the queue keeps them: JSON of what is no default."""
    if options is NO_OPTIONS or options == NO_OPTIONS:
        return "{}"
    defaults = to_json(NO_OPTIONS)
    return json.dumps({name: value for name, value in to_json(options).items() if value != defaults[name]})


def options_from_text(text: str) -> TransferOptions:
    """Return what `options_to_text` wrote."""
    return NO_OPTIONS if text == "{}" else decode_fields(TransferOptions, json.loads(text))


def task_spec(row: tuple[Any, ...]) -> TaskSpec:
    """Build a TaskSpec from a row of the statement `spec`."""
    identity = None
    if row[10] is not None:
        identity = FileIdentity(inode=row[10], size_bytes=row[11], mtime_ns=row[12])
    return TaskSpec(
        id=row[0],
        uid=row[1],
        url=row[2],
        dir=row[3],
        output=row[4],
        headers=() if row[5] == "[]" else tuple(json.loads(row[5])),
        limit_rate_bps=row[6],
        on_conflict=_ON_CONFLICT[row[7]],
        name=row[8],
        part=row[9],
        identity=identity,
        bytes_done=row[13],
        streak=row[14],
        host=row[15],
        options=options_from_text(row[16]),
        stuck_since=row[17],
        created_at=row[18],
    )


def task_view(row: tuple[Any, ...]) -> Task:
    """Build the wire's Task from a row of the statements `view` and `views`, without live figures."""
    error = TaskError(code=row[13], message=row[14] or "") if row[13] is not None else None
    return Task(
        id=row[0],
        url=row[1],
        name=row[2],
        dest=row[3],
        dir=row[4],
        state=STATES[row[5]],
        owner=row[6],
        uid=row[7],
        priority=row[8],
        bytes_done=row[9],
        bytes_total=row[10],
        speed_bps=0,
        eta_s=None,
        connections=0,
        attempts=row[11],
        http_status=row[12],
        error=error,
        created_at=row[15],
        started_at=row[16],
        finished_at=row[17],
        retry_at=row[18],
        label=row[19],
    )


def log_entry(row: tuple[Any, ...]) -> LogEntry:
    """Build the wire's LogEntry from a row of the statement `events_of`."""
    at, event, state, detail, actor, actor_uid, pid, program = row
    return LogEntry(
        at=at, event=event, state=state, detail=detail, actor=actor, actor_uid=actor_uid, pid=pid, program=program
    )


def history_entry(row: tuple[Any, ...]) -> HistoryEntry:
    """Build the wire's HistoryEntry from a row of the statements `history_of` and `history_of_all`."""
    return HistoryEntry(
        at=row[0],
        event=row[1],
        state=row[2] or None,
        detail=row[3],
        actor=row[4],
        actor_uid=row[5],
        pid=row[6],
        program=row[7],
        id=row[8] or None,
        uid=row[9],
        owner=row[10],
        url=None if row[11] is None else redact_url(row[11]),
    )
