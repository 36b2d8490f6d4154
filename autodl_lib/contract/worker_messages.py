"""What supervisor and workers say to each other; worker_states.py has what a worker may say when.

Runs as: everyone.  Talks to: nobody; no I/O.
Orders go to one worker over its own pipe; reports come back through the report queue. Both are JSON
objects with a `type`.
"""

from __future__ import annotations

from typing import ClassVar

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.fields import param
from autodl_lib.contract.light_dataclass import dataclass
from autodl_lib.contract.requests.terms import MAX_HEADER_LENGTH
from autodl_lib.contract.task import OnConflict
from autodl_lib.contract.transfer_options import MAX_CONNECTIONS, MAX_MIRRORS, NO_OPTIONS, TransferOptions
from autodl_lib.contract.urls import MAX_URL_LENGTH

MAX_REPORT_BYTES = 65536
"""The longest text of one `put`, which may carry several reports."""

_NAME_BYTES = 255
_PATH_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class FileIdentity:
    """What tells a part file apart from every other file of its folder, across a restart and a rename."""

    inode: int = param("st_ino, its lowest 63 bits", minimum=0, maximum=2**63 - 1)
    size_bytes: int = param("st_size", minimum=0)
    mtime_ns: int = param("st_mtime_ns", minimum=-(2**63), maximum=2**63 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSettings:
    """The settings a transfer obeys; see contract/settings.py for each one's meaning."""

    connect_timeout_s: float
    stall_timeout_s: float
    min_free_bytes: int
    durable: bool
    max_redirects: int
    user_agent: str
    connections: int = 1


# --- orders: supervisor to worker ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Configure:
    """Obey these settings from the next assignment on."""

    type: ClassVar[str] = "configure"
    settings: TransferSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign:
    """Download one task; several may wait in the worker, which does them in order.

    One at a time, but small files of one host side by side, over no more connections than each of them may use.
    `tag` names the task for all time (database and number): a part file belongs to the task whose tag its
    control file carries. `name`, `part` and `identity` are what an earlier attempt reported; with
    `identity`, that attempt had a complete, synced part file and leave to publish it as `name`, so the
    worker must look whether that has happened before it downloads anything. `limit_rate_bps` is what the task
    may have now, 0 is no limit; `connections` how many it may use now to the host of the URL and of each mirror.
    `is_again`: an earlier attempt may have left a part file that nobody has heard of.
    """

    type: ClassVar[str] = "assign"
    lease: str
    task_id: int
    tag: str
    url: str = param("what to fetch", max_length=MAX_URL_LENGTH)
    dir: str
    output: str | None
    headers: tuple[str, ...] = param("lines to add to the request", max_length=MAX_HEADER_LENGTH)
    limit_rate_bps: int
    on_conflict: OnConflict
    name: str | None
    part: str | None
    identity: FileIdentity | None
    options: TransferOptions = NO_OPTIONS
    connections: tuple[int, ...] = (1,)
    is_again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRate:
    """From now on this assignment may take so many bytes a second; 0 is no limit."""

    type: ClassVar[str] = "set_rate"
    lease: str
    limit_rate_bps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """From now on this assignment may use so many connections to the host of its URL and of each mirror.

    The worker answers `yielded` once it uses no more than that.
    """

    type: ClassVar[str] = "grant"
    lease: str
    connections: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """The `ready` reports of these leases are on the supervisor's disk: give the files their final names."""

    type: ClassVar[str] = "publish"
    leases: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """Let go of this assignment: keep the part file for later, or discard it."""

    type: ClassVar[str] = "halt"
    lease: str
    discard: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """Give back those of these assignments that have not begun; the others go on.

    The worker answers `returned` or `retained` for each, unless what ends it has been said before.
    """

    type: ClassVar[str] = "recall"
    leases: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Discard:
    """Remove the part and control file that a task which is no longer wanted left in `dir`."""

    type: ClassVar[str] = "discard"
    lease: str
    dir: str
    part: str
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire:
    """Halt everything, keeping part files, and exit."""

    type: ClassVar[str] = "retire"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Answer `pong`, to show that the loop turns."""

    type: ClassVar[str] = "ping"


Order = Configure | Assign | SetRate | Grant | Publish | Halt | Recall | Discard | Retire | Ping
ORDERS: tuple[type[Order], ...] = (Configure, Assign, SetRate, Grant, Publish, Halt, Recall, Discard, Retire, Ping)

# --- reports: worker to supervisor ---

_LEASE = "the random word that came with the assignment, or the worker's own key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The worker has become its user for good and proved it; `lease` is the worker's own key."""

    type: ClassVar[str] = "bound"
    lease: str = param(_LEASE, max_length=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    """The answer to `ping`; only a worker that was asked may say it, once."""

    type: ClassVar[str] = "pong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Bytes are flowing into `part`, to become `name`; without those, the server has yet to answer."""

    type: ClassVar[str] = "started"
    lease: str = param(_LEASE, max_length=64)
    name: str | None = param("the final name as far as known", max_length=_NAME_BYTES)
    part: str | None = param("the part file's name", max_length=_NAME_BYTES)
    bytes_done: int = param("bytes in the part file, kept from earlier attempts too", minimum=0)
    bytes_total: int | None = param("the file's size, null while unknown", minimum=0)
    http_status: int | None = param("the response code", minimum=0, maximum=999)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the transfer is; at most four a second."""

    type: ClassVar[str] = "progress"
    lease: str = param(_LEASE, max_length=64)
    bytes_done: int = param("bytes in the part file", minimum=0)
    bytes_total: int | None = param("the file's size, null while unknown", minimum=0)
    speed_bps: int = param("smoothed speed", minimum=0, unit="B/s")
    connections: int = param("connections in use", minimum=0, maximum=1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something for the task's history, such as that the remote file changed."""

    type: ClassVar[str] = "note"
    lease: str = param(_LEASE, max_length=64)
    text: str = param("one sentence", max_length=500)


@dataclass(frozen=True, slots=True, kw_only=True)
class Yielded:
    """No more than these connections are used: the answer to `grant`."""

    type: ClassVar[str] = "yielded"
    lease: str = param(_LEASE, max_length=64)
    connections: tuple[int, ...] = param(
        "to the host of the URL and of each mirror", minimum=0, maximum=MAX_CONNECTIONS, max_items=MAX_MIRRORS + 1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """The task asked for what is newer than the file that is there, and the server has nothing newer."""

    type: ClassVar[str] = "current"
    lease: str = param(_LEASE, max_length=64)
    dest: str = param("absolute path of the file", max_length=_PATH_BYTES + _NAME_BYTES + 1)
    size_bytes: int = param("the file's size", minimum=0)
    http_status: int | None = param("the response code", minimum=0, maximum=999)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The part file is complete, checked and synced, and waits for `publish` to become `name`."""

    type: ClassVar[str] = "ready"
    lease: str = param(_LEASE, max_length=64)
    name: str = param("the final name it will take", max_length=_NAME_BYTES)
    part: str | None = param("the part file's name, null for a file that has none yet", max_length=_NAME_BYTES)
    identity: FileIdentity = param("of the part file")
    http_status: int | None = param("the response code", minimum=0, maximum=999)
    bytes_received: int = param("bytes that this attempt took from the network", minimum=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The file is at its final name and the folder is synced; nothing of the part is left."""

    type: ClassVar[str] = "finished"
    lease: str = param(_LEASE, max_length=64)
    dest: str = param("absolute path of the file", max_length=_PATH_BYTES + _NAME_BYTES + 1)
    size_bytes: int = param("the file's size", minimum=0)
    sha256: str | None = param("its SHA-256 in hexadecimal, where that was checked", default=None, max_length=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """This attempt is over without success."""

    type: ClassVar[str] = "failed"
    lease: str = param(_LEASE, max_length=64)
    code: FailureCode = param("why")
    message: str = param("one sentence for the owner, without secrets", max_length=1000)
    http_status: int | None = param("the response code, where there was one", minimum=0, maximum=999)
    retry_after_s: float | None = param("what the server asked for", minimum=0, maximum=10**9, unit="s")
    source: int = param(
        "whose server this is about: 0 is the URL, then come the mirrors", default=0, minimum=0, maximum=MAX_MIRRORS
    )
    elsewhere: bool = param("whether that server had redirected to the one that answered so", default=False)
    bytes_done: int = param("bytes kept in the part file", minimum=0)
    bytes_received: int = param("bytes that this attempt took from the network", minimum=0)
    part: str | None = param("the part file that is kept, null when there is none", max_length=_NAME_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Halted:
    """The assignment was let go, as ordered; `part` is what is kept of it."""

    type: ClassVar[str] = "halted"
    lease: str = param(_LEASE, max_length=64)
    bytes_done: int = param("bytes kept in the part file", minimum=0)
    bytes_received: int = param("bytes that this attempt took from the network", minimum=0)
    part: str | None = param("the part file that is kept, null when there is none", max_length=_NAME_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """The assignment was not begun and goes back, as ordered, or because the one before it takes long."""

    type: ClassVar[str] = "returned"
    lease: str = param(_LEASE, max_length=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retained:
    """The assignment had begun when it was recalled, and goes on."""

    type: ClassVar[str] = "retained"
    lease: str = param(_LEASE, max_length=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded:
    """Nothing of the part file is left."""

    type: ClassVar[str] = "discarded"
    lease: str = param(_LEASE, max_length=64)


Report = (
    Bound
    | Pong
    | Started
    | Progress
    | Note
    | Yielded
    | Current
    | Ready
    | Finished
    | Failed
    | Halted
    | Returned
    | Retained
    | Discarded
)
REPORTS: tuple[type[Report], ...] = (
    Bound,
    Pong,
    Started,
    Progress,
    Note,
    Yielded,
    Current,
    Ready,
    Finished,
    Failed,
    Halted,
    Returned,
    Retained,
    Discarded,
)
