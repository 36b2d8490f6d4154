"""Every setting of the daemon, declared once: key, meaning, unit, range, default.

Runs as: everyone.  Talks to: nobody; no I/O (the supervisor reads the file).
Invariants: keys are fixed points; an unknown key is an error that names the nearest one, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from autodl_lib.contract.codec import decode_fields
from autodl_lib.contract.errors import BadSettings, InvalidParams
from autodl_lib.contract.fields import param


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSection:
    """[transfer]: how a download talks to servers and disks."""

    connections: int = param(
        "connections for one file, at most; more than one is used only where it helps",
        default=8,
        minimum=1,
        maximum=256,
    )
    connections_per_host: int = param(
        "connections to one host over all tasks of all users, at most", default=16, minimum=1, maximum=4096
    )
    connect_timeout_s: float = param(
        "give up connecting after so long", default=30.0, minimum=0.1, maximum=3600, unit="s"
    )
    stall_timeout_s: float = param(
        "no byte for so long is a transient failure", default=60.0, minimum=0.1, maximum=86400, unit="s"
    )
    rate_bps: int = param("bytes a second of the whole daemon; 0 is no limit", default=0, minimum=0, unit="B/s")
    min_free_bytes: int = param(
        "leave so much free on the disk that is saved to", default=104857600, minimum=0, unit="B"
    )
    durable: bool = param("sync file and folder to disk before a task is finished", default=True)
    max_redirects: int = param("follow at most so many redirects", default=20, minimum=0, maximum=100)
    user_agent: str = param("what servers are told; empty: autodl and its version", default="", max_length=512)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySection:
    """[retry]: what happens after a failure that may pass by itself."""

    max_attempts: int = param("tries in a row without progress; 0 is no limit", default=10, minimum=0, maximum=10**6)
    first_delay_s: float = param(
        "wait before the second try; doubles, with jitter", default=5.0, minimum=0.01, unit="s"
    )
    max_delay_s: float = param(
        "never wait longer, unless the server asks for it", default=600.0, minimum=0.01, unit="s"
    )
    no_progress_limit_s: float = param(
        "give up a task that has only failed for so long, without progress; 0 is no limit",
        default=604800.0,
        minimum=0,
        unit="s",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSection:
    """[access]: which local users may use a daemon that runs as root, and who administers it."""

    allow_users: tuple[str, ...] = param("names, or * for all", default=("*",), max_length=256)
    allow_groups: tuple[str, ...] = param("groups whose members may, besides allow_users", default=(), max_length=256)
    deny_users: tuple[str, ...] = param(
        "names of who may not, whatever else says that they may; never root", default=(), max_length=256
    )
    deny_groups: tuple[str, ...] = param("groups whose members may not, likewise", default=(), max_length=256)
    admin_group: str = param("members see and steer everything, as root does", default="autodl-admin", max_length=256)
    socket_group: str = param(
        "the group that the socket is given to, at the start (systemd's socket: SocketGroup= in its unit)",
        default="",
        max_length=256,
    )
    socket_mode: str = param(
        'who may connect at all, in octal, at the start, such as "0660" beside a socket_group; empty: all users, or '
        "the private daemon's own (systemd's socket: SocketMode= in its unit)",
        default="",
        max_length=4,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSection:
    """[limits]: for each user."""

    running: int = param("tasks at once; 0 is max_tasks_num", default=0, minimum=0, maximum=1000)
    queued: int = param("tasks that wait, at most", default=1_000_000, minimum=1)
    rate_bps: int = param("bytes a second; 0 is no limit", default=0, minimum=0, unit="B/s")
    connections: int = param(
        "connections at once over all of a user's tasks, to whichever hosts; 0 is no limit",
        default=0,
        minimum=0,
        maximum=1_000_000,
    )
    bytes_per_day: int = param(
        "bytes from one 0:00 UTC to the next; who has taken so many waits for the next day; 0 is no limit",
        default=0,
        minimum=0,
        unit="B",
    )
    weight: int = param(
        "the share of the places where several users want them: one of weight 2 has twice as many as one of weight 1",
        default=1,
        minimum=1,
        maximum=1000,
    )
    make_way_after_s: float = param(
        "while all places are taken, a user who has none waits for so long: then the newest download of whoever has the"
        " most, and several, is set back into the queue, and goes on later where it was; 0 is never",
        default=30.0,
        minimum=0,
        maximum=86400,
        unit="s",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnLimits:
    """[users.NAME] and [groups.NAME]: what differs from [limits] for this user, or for who is in this group.

    A user's own table wins over those of groups, and of these the one that stands first in the file.
    """

    running: int | None = param("tasks at once; 0 is max_tasks_num", default=None, minimum=0, maximum=1000)
    queued: int | None = param("tasks that wait, at most", default=None, minimum=1)
    rate_bps: int | None = param("bytes a second; 0 is no limit", default=None, minimum=0, unit="B/s")
    connections: int | None = param(
        "connections at once over all tasks; 0 is no limit", default=None, minimum=0, maximum=1_000_000
    )
    bytes_per_day: int | None = param(
        "bytes from one 0:00 UTC to the next; 0 is no limit", default=None, minimum=0, unit="B"
    )
    weight: int | None = param("the share of the places", default=None, minimum=1, maximum=1000)
    make_way_after_s: float | None = param(
        "how long it is waited for a place before another user's download makes way; 0 is never",
        default=None,
        minimum=0,
        maximum=86400,
        unit="s",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedLimits:
    """The limits of one user or group, by its name."""

    name: str
    limits: OwnLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class HistorySection:
    """[history]: how long settled tasks are remembered."""

    keep_days: int = param(
        "days after which a settled task is forgotten", default=30, minimum=1, maximum=36500, unit="d"
    )
    keep_tasks: int = param(
        "settled tasks that are remembered for each user, the newest ones", default=100_000, minimum=1
    )
    keep_events: int = param(
        "changes of tasks and queues that `autodl history` can show, for each user", default=200_000, minimum=1
    )


class IoPriority(StrEnum):
    """How a worker stands in the disk's queue: as the daemon, behind everybody, or at a level of best effort."""

    NONE = "none"
    IDLE = "idle"
    BEST_EFFORT_0 = "0"
    BEST_EFFORT_1 = "1"
    BEST_EFFORT_2 = "2"
    BEST_EFFORT_3 = "3"
    BEST_EFFORT_4 = "4"
    BEST_EFFORT_5 = "5"
    BEST_EFFORT_6 = "6"
    BEST_EFFORT_7 = "7"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSection:
    """[worker]: what each worker process may take from the machine; for workers that start after a change."""

    nice: int = param("how far its CPU time stands back, as nice(1) has it", default=0, minimum=0, maximum=19)
    io_priority: IoPriority = param(
        "its place in the disk's queue: as the daemon, only when the disk is idle, or best effort from 0 (first) to 7",
        default=IoPriority.NONE,
    )
    memory_bytes: int = param("memory that it writes to; 0 is no limit", default=536870912, minimum=0, unit="B")
    files: int = param("open files and connections", default=1024, minimum=64, maximum=1048576)
    processes: int = param(
        "processes and threads of its user, those that are not ours included; 0 is no limit", default=8192, minimum=0
    )
    confine_to_folder: bool = param(
        "where the kernel has Landlock, let a worker write to the folder of its tasks alone; it serves no other then",
        default=True,
    )
    file_size_bytes: int = param("the largest file that it may write; 0 is no limit", default=0, minimum=0, unit="B")
    answer_timeout_s: float = param(
        "one that has work and does not answer for so long, since it is stopped or hangs, is replaced",
        default=60.0,
        minimum=1,
        maximum=3600,
        unit="s",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole of autodl.toml."""

    max_tasks_num: int = param("downloads at once, over all users", default=10, minimum=1, maximum=1000)
    transfer: TransferSection = field(default_factory=TransferSection)
    retry: RetrySection = field(default_factory=RetrySection)
    access: AccessSection = field(default_factory=AccessSection)
    limits: LimitsSection = field(default_factory=LimitsSection)
    worker: WorkerSection = field(default_factory=WorkerSection)
    history: HistorySection = field(default_factory=HistorySection)
    users: tuple[NamedLimits, ...] = ()
    groups: tuple[NamedLimits, ...] = ()


SECTIONS: dict[str, type[Any]] = {
    "transfer": TransferSection,
    "retry": RetrySection,
    "access": AccessSection,
    "limits": LimitsSection,
    "worker": WorkerSection,
    "history": HistorySection,
}

TABLES = ("users", "groups")
"""Tables of tables: `[users.alice]` is the OwnLimits of alice."""


def known_keys() -> tuple[str, ...]:
    """Return every key as it is spelled in messages: `max_tasks_num`, `transfer.connections`, ..."""
    inner = [f"{section}.{f.name}" for section, cls in SECTIONS.items() for f in fields(cls)]
    return ("max_tasks_num", *inner)


def settings_from_toml(document: Mapping[str, Any], where: str) -> Settings:
    """Build Settings from a parsed TOML document; `where` names the file in messages.

    Raises: BadSettings.
    """
    for key, value in document.items():
        if key in TABLES:
            _check_table(key, value, where)
        elif key in SECTIONS:
            if not isinstance(value, dict):
                raise BadSettings(f"{where}: {key} must be a table: write [{key}]")
            for inner in value:
                _check_known(f"{key}.{inner}", where)
        else:
            _check_known(key, where)
    try:
        sections = {key: decode_fields(cls, document.get(key, {}), context=f"{key}.") for key, cls in SECTIONS.items()}
        tables = {key: [_named(key, *item) for item in document.get(key, {}).items()] for key in TABLES}
        top = {key: value for key, value in document.items() if key not in SECTIONS}
        return decode_fields(Settings, {**top, **sections, **tables}, context="")
    except InvalidParams as error:
        raise BadSettings(f"{where}: {error}") from None


def _named(table: str, name: str, document: Mapping[str, Any]) -> NamedLimits:
    return NamedLimits(name=name, limits=decode_fields(OwnLimits, document, context=f"{table}.{name}."))


def _check_table(table: str, value: Any, where: str) -> None:
    """Check that each key of `[users.NAME]` and `[groups.NAME]` is known."""
    if not isinstance(value, dict):
        raise BadSettings(f"{where}: {table} must be a table: write [{table}.NAME]")
    for name, inner in value.items():
        if not isinstance(inner, dict):
            raise BadSettings(f"{where}: {table}.{name} must be a table: write [{table}.{name}]")
        known = tuple(f"{table}.{name}.{item.name}" for item in fields(OwnLimits))
        for key in inner:
            _check_known(f"{table}.{name}.{key}", where, known)


def _check_known(key: str, where: str, known: tuple[str, ...] = ()) -> None:
    known = known or known_keys()
    if key in known:
        return
    section, _, last = key.rpartition(".")
    here = [k for k in known if k.rpartition(".")[0] == section]
    near = get_close_matches(key, here if "." in key else (*SECTIONS, *TABLES, *here), n=1, cutoff=0.7)
    near = (
        near or get_close_matches(key, known, n=1, cutoff=0.7) or [k for k in known if k.rpartition(".")[2] == last][:1]
    )
    hint = f"; did you mean {near[0]}?" if near else f"; known keys: {', '.join(known)}"
    raise BadSettings(f"{where}: unknown key {key}{hint}")
