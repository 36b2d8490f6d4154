"""What the daemon answers to each request: the `result` of a JSON-RPC reply.

Runs as: everyone.  Talks to: nobody; no I/O.
Invariants: field names are fixed points of `--json`.
"""

from __future__ import annotations

from dataclasses import dataclass

from autodl_lib.contract.states import TaskState
from autodl_lib.contract.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """The first line that the daemon sends on a connection, as the params of a notification `hello`."""

    protocol: int
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ids:
    """Answer to add, cancel, retry, and pause or resume with ids: the tasks concerned, in the order asked."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPage:
    """Answer to list; `next` is the `after` of the following page, null on the last one."""

    tasks: tuple[Task, ...]
    next: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """Answer to watch, sent after the first picture of each task; `settled` counts those already at their end."""

    tasks: int
    settled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One thing that happened to a task: `at` UTC epoch seconds, the state it led to, and what is known of why.

    Who asked for it, from which process, is null where nobody did: it came by itself.
    """

    at: float
    event: str
    state: str
    detail: str | None
    actor: str | None = None
    actor_uid: int | None = None
    pid: int | None = None
    program: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLog:
    """Answer to log."""

    events: tuple[LogEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """A change that somebody asked for, or how a task ended: `at` UTC epoch seconds, and whose task it is.

    `id`, `owner` and `url` are null where it is about a whole queue or about a task that is forgotten; `uid` -1 is
    the whole daemon. Who asked is null where nobody did.
    """

    at: float
    event: str
    id: int | None
    uid: int
    owner: str | None
    url: str | None
    state: str | None
    detail: str | None
    actor: str | None
    actor_uid: int | None
    pid: int | None
    program: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """Answer to history: entries, the newest first."""

    events: tuple[HistoryEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Answer to explain: one sentence."""

    id: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Answer to pause and resume without ids: is the queue held, and until when (null: until resume)."""

    held: bool
    until: float | None
    paused_tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Answer to clear: how many tasks were dropped."""

    cleared: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Answer to stats: tasks per state, answers per response code over 10 minutes (and `total`), bytes, bytes/s."""

    tasks: dict[str, int]
    responses: dict[str, int]
    bytes: int
    speed_bps: int
    max_tasks_num: int
    held: bool
    held_until: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxTasksNum:
    """Answer to max_tasks."""

    max_tasks_num: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimit:
    """A task's own limit, in bytes a second, 0 for none."""

    id: int
    limit_rate_bps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Answer to limit: what counts now, in bytes a second, 0 for none.

    `user_bps` is what `user` may take with all downloads together, `own_bps` what they have set of it
    themselves; `tasks` are those that were asked for.
    """

    daemon_bps: int
    user: str
    user_bps: int
    own_bps: int
    tasks: tuple[TaskLimit, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlSet:
    """Answer to set_url: the state that the task is in, and how it goes on."""

    id: int
    state: TaskState
    next: str


Reply = (
    Greeting
    | Ids
    | Task
    | TaskPage
    | Watching
    | TaskLog
    | HistoryEntry
    | EventPage
    | Explanation
    | Hold
    | Count
    | Statistics
    | MaxTasksNum
    | Limits
    | UrlSet
)
