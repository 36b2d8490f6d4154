"""Every request that the daemon answers, declared once: method, who may, what it can refuse, parameters.

Runs as: everyone.  Talks to: nobody; no I/O.
Strict decoding, authorisation, click's options, docs/PROTOCOL.md and the manual derive from here.
Invariants: REQUESTS is the explicit list; a method that is not in it does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from autodl_lib.contract.errors import (
    AutodlError,
    BadUrl,
    Busy,
    InvalidParams,
    NoSuchTask,
    NotAllowed,
    QueueFull,
    ShuttingDown,
    WrongState,
)
from autodl_lib.contract.fields import param
from autodl_lib.contract.states import TaskState
from autodl_lib.contract.task import OnConflict
from autodl_lib.contract.transfer_options import OptionGroup, TransferOptions
from autodl_lib.contract.urls import MAX_URL_LENGTH

DEFAULT_DIR = "~/autodl-storage"
MAX_URLS_PER_ADD = 20_000
MAX_IDS = 10_000
MAX_HEADER_LENGTH = 8192
MAX_COPIES_LENGTH = 8 * 1024 * 1024
"""What one `add` may ask beside its URLs, once for each of them: every task keeps its own copy."""
PRIORITY_RANGE = 1000
MAX_LABEL_LENGTH = 100


class Access(StrEnum):
    """Who may send a request: any local user, the owner of the tasks that it names, an administrator."""

    ANYONE = "anyone"
    OWNER = "owner"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(TransferOptions):
    """Queue URLs for download; the answer comes when they are on disk."""

    method: ClassVar[str] = "add"
    access: ClassVar[Access] = Access.ANYONE
    errors: ClassVar[tuple[type[AutodlError], ...]] = (BadUrl, InvalidParams, QueueFull, ShuttingDown)
    changes: ClassVar[bool] = True

    urls: tuple[str, ...] = param(
        "what to download", metavar="URL", max_length=MAX_URL_LENGTH, min_items=1, max_items=MAX_URLS_PER_ADD
    )
    dir: str = param(
        "the folder to save to: an absolute path, or one that begins with ~",
        default=DEFAULT_DIR,
        cli=("-d", "--dir"),
        metavar="DIR",
        group=OptionGroup.SAVING,
    )
    output: str | None = param(
        "the name to save under, for a single URL",
        default=None,
        cli=("-o", "--output"),
        metavar="NAME",
        max_length=255,
        group=OptionGroup.SAVING,
    )
    priority: int = param(
        "tasks of a higher number start first",
        default=0,
        cli=("--priority",),
        metavar="N",
        minimum=-PRIORITY_RANGE,
        maximum=PRIORITY_RANGE,
        group=OptionGroup.QUEUEING,
    )
    headers: tuple[str, ...] = param(
        "a line to add to the HTTP request, such as 'Accept: text/plain'; may be repeated",
        default=(),
        cli=("-H", "--header"),
        metavar="LINE",
        max_length=MAX_HEADER_LENGTH,
        max_items=100,
        secret=True,
        group=OptionGroup.ASKING,
    )
    limit_rate_bps: int = param(
        "the most bytes a second for each of these tasks; 0 is no limit",
        default=0,
        cli=("--limit-rate",),
        metavar="RATE",
        unit="B/s",
        minimum=0,
        group=OptionGroup.QUEUEING,
    )
    paused: bool = param(
        "queue them paused; `autodl resume --id` starts them",
        default=False,
        cli=("--paused",),
        group=OptionGroup.QUEUEING,
    )
    label: str | None = param(
        "a word of your own for these tasks, by which `autodl list --label` finds them",
        default=None,
        cli=("--label",),
        metavar="WORD",
        max_length=MAX_LABEL_LENGTH,
        group=OptionGroup.QUEUEING,
    )
    on_conflict: OnConflict = param(
        "when the name is taken: save as NAME.1.EXT, fail the task, or replace the file",
        default=OnConflict.RENAME,
        cli=("--on-conflict",),
        group=OptionGroup.SAVING,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Show one task."""

    method: ClassVar[str] = "status"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NoSuchTask,)
    changes: ClassVar[bool] = False

    id: int = param("the task's number", metavar="ID", minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class List:
    """Show tasks, oldest first, a page at a time; a page may have fewer than `limit`, and still not be the last."""

    method: ClassVar[str] = "list"
    access: ClassVar[Access] = Access.ANYONE
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NotAllowed,)
    changes: ClassVar[bool] = False

    states: tuple[TaskState, ...] = param(
        "only tasks in this state; may be repeated", default=(), cli=("-s", "--state"), max_items=len(TaskState)
    )
    host: str | None = param(
        "only tasks whose URL is of this host; HOST:PORT for one port of it",
        default=None,
        cli=("--host",),
        metavar="HOST",
        max_length=512,
    )
    since: float | None = param(
        "only tasks that were added since then, in UTC epoch seconds", default=None, minimum=0, maximum=10**11
    )
    label: str | None = param(
        "only tasks that were added with this label",
        default=None,
        cli=("--label",),
        metavar="WORD",
        max_length=MAX_LABEL_LENGTH,
    )
    reverse: bool = param("the newest ones first", default=False, cli=("-r", "--reverse"))
    all: bool = param("the tasks of all users (administrators)", default=False, cli=("-a", "--all"))
    after: int = param(
        "only tasks with a higher number than this (with `reverse`: a lower one, 0 is none)", default=0, minimum=0
    )
    limit: int = param("at most so many tasks in the answer", default=1000, minimum=1, maximum=5000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Stream tasks as they change: first each as it is now, then a notification `task` for every change."""

    method: ClassVar[str] = "watch"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (InvalidParams, NoSuchTask, NotAllowed, Busy)
    changes: ClassVar[bool] = False

    ids: tuple[int, ...] | None = param(
        "the tasks to follow; null for all that the caller has",
        default=None,
        metavar="ID",
        minimum=1,
        max_items=MAX_IDS,
    )
    progress: bool = param("also notify when only the bytes have changed", default=True)
    all: bool = param("the tasks of all users (administrators)", default=False, cli=("-a", "--all"))
    ends: bool = param("notify of tasks that are settled only", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Show what happened to a task, oldest first."""

    method: ClassVar[str] = "log"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NoSuchTask,)
    changes: ClassVar[bool] = False

    id: int = param("the task's number", metavar="ID", minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Show who changed what, and how tasks ended, newest first."""

    method: ClassVar[str] = "history"
    access: ClassVar[Access] = Access.ANYONE
    errors: ClassVar[tuple[type[AutodlError], ...]] = (InvalidParams, NotAllowed)
    changes: ClassVar[bool] = False

    since: float | None = param(
        "only what happened since then, in UTC epoch seconds",
        default=None,
        minimum=0,
        maximum=10**11,
    )
    user: str | None = param(
        "the history of this user's tasks (administrators)",
        default=None,
        cli=("--user",),
        metavar="NAME",
        max_length=256,
    )
    limit: int = param(
        "at most so many entries", default=100, cli=("-n", "--limit"), metavar="N", minimum=1, maximum=5000
    )
    all: bool = param(
        "the history of all users, and of the daemon (administrators)", default=False, cli=("-a", "--all")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Explain:
    """Say in one sentence why a task is not running."""

    method: ClassVar[str] = "explain"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NoSuchTask,)
    changes: ClassVar[bool] = False

    id: int = param("the task's number", metavar="ID", minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Start no new downloads, for some seconds or until `resume`; with ids, set just these tasks aside."""

    method: ClassVar[str] = "pause"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (InvalidParams, NoSuchTask, WrongState, NotAllowed, ShuttingDown)
    changes: ClassVar[bool] = True

    seconds: float | None = param(
        "for so long; until `resume` when not given",
        default=None,
        metavar="SECONDS",
        unit="s",
        minimum=0,
        maximum=10**9,
    )
    ids: tuple[int, ...] = param(
        "pause this task, also in mid-download; may be repeated",
        default=(),
        cli=("--id",),
        metavar="ID",
        minimum=1,
        max_items=MAX_IDS,
    )
    all: bool = param("hold the queues of all users (administrators)", default=False, cli=("-a", "--all"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Start new downloads again; with ids, let just these paused tasks go on."""

    method: ClassVar[str] = "resume"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NoSuchTask, WrongState, NotAllowed, ShuttingDown)
    changes: ClassVar[bool] = True

    ids: tuple[int, ...] = param(
        "let this paused task go on; may be repeated",
        default=(),
        cli=("--id",),
        metavar="ID",
        minimum=1,
        max_items=MAX_IDS,
    )
    all: bool = param("lift the hold on all users' queues (administrators)", default=False, cli=("-a", "--all"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Stop tasks for good and remove what they had downloaded so far."""

    method: ClassVar[str] = "cancel"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NoSuchTask, WrongState, ShuttingDown)
    changes: ClassVar[bool] = True

    ids: tuple[int, ...] = param("the tasks' numbers", metavar="ID", minimum=1, min_items=1, max_items=MAX_IDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Queue failed, cancelled or cleared tasks again; a task that waits for its next try starts at once."""

    method: ClassVar[str] = "retry"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NoSuchTask, WrongState, ShuttingDown)
    changes: ClassVar[bool] = True

    ids: tuple[int, ...] = param("the tasks' numbers", metavar="ID", minimum=1, min_items=1, max_items=MAX_IDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clear:
    """Drop all that is enqueued or waits for another try; running downloads go on."""

    method: ClassVar[str] = "clear"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NotAllowed, ShuttingDown)
    changes: ClassVar[bool] = True

    all: bool = param("the tasks of all users (administrators)", default=False, cli=("-a", "--all"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Count tasks by state, answers by response code over the last 10 minutes, bytes and speed."""

    method: ClassVar[str] = "stats"
    access: ClassVar[Access] = Access.ANYONE
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NotAllowed,)
    changes: ClassVar[bool] = False

    all: bool = param("those of all users (administrators)", default=False, cli=("-a", "--all"))


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxTasks:
    """Show how many tasks may run at once, or change it (administrators), at once."""

    method: ClassVar[str] = "max_tasks"
    access: ClassVar[Access] = Access.ANYONE
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NotAllowed, InvalidParams, ShuttingDown)
    changes: ClassVar[bool] = True

    max_tasks_num: int | None = param(
        "the new number; not given, the present one is shown", default=None, metavar="N", minimum=1, maximum=1000
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Priority:
    """Change a task's priority."""

    method: ClassVar[str] = "priority"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NoSuchTask, ShuttingDown)
    changes: ClassVar[bool] = True

    id: int = param("the task's number", metavar="ID", minimum=1)
    priority: int = param(
        "tasks of a higher number start first", metavar="N", minimum=-PRIORITY_RANGE, maximum=PRIORITY_RANGE
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Show limits in bytes a second, or change them at once: yours, a task's, the whole daemon's."""

    method: ClassVar[str] = "limit"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (InvalidParams, NoSuchTask, WrongState, NotAllowed, ShuttingDown)
    changes: ClassVar[bool] = True

    rate_bps: int | None = param(
        "the new limit, 0 for none; not given, the present one is shown",
        default=None,
        metavar="RATE",
        unit="B/s",
        minimum=0,
    )
    ids: tuple[int, ...] = param(
        "the limit of this task; may be repeated",
        default=(),
        cli=("--id",),
        metavar="ID",
        minimum=1,
        max_items=MAX_IDS,
    )
    daemon: bool = param(
        "the limit of all downloads together (administrators change it)", default=False, cli=("--daemon",)
    )
    user: str | None = param(
        "the limit of this user's downloads together (administrators)",
        default=None,
        cli=("--user",),
        metavar="NAME",
        max_length=256,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUrl:
    """Give a task another URL of the same file; what it has downloaded is kept."""

    method: ClassVar[str] = "set_url"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (BadUrl, NoSuchTask, NotAllowed, WrongState, ShuttingDown)
    changes: ClassVar[bool] = True

    id: int = param("the task's number", metavar="ID", minimum=1)
    url: str = param("where the file is now", metavar="URL", max_length=MAX_URL_LENGTH)


Request = (
    Add
    | Status
    | List
    | Watch
    | Log
    | History
    | Explain
    | Pause
    | Resume
    | Cancel
    | Retry
    | Clear
    | Stats
    | MaxTasks
    | Priority
    | Limit
    | SetUrl
)

REQUESTS: tuple[type[Request], ...] = (
    Add,
    Status,
    List,
    Watch,
    Log,
    History,
    Explain,
    Pause,
    Resume,
    Cancel,
    Retry,
    Clear,
    Stats,
    MaxTasks,
    Priority,
    Limit,
    SetUrl,
)

REQUEST_BY_METHOD: dict[str, type[Request]] = {request.method: request for request in REQUESTS}
