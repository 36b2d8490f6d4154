"""Every setting of the daemon, declared once: key, meaning, unit, range, default.

Runs as: everyone.  Talks to: nobody; no I/O (the supervisor reads the file).
Invariants: keys are fixed points; an unknown key is an error that names the nearest one, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
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
    admin_group: str = param("members see and steer everything, as root does", default="autodl-admin", max_length=256)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSection:
    """[limits]: for each user."""

    running: int = param("tasks at once; 0 is max_tasks_num", default=0, minimum=0, maximum=1000)
    queued: int = param("tasks that wait, at most", default=1_000_000, minimum=1)
    rate_bps: int = param("bytes a second; 0 is no limit", default=0, minimum=0, unit="B/s")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistorySection:
    """[history]: how long settled tasks are remembered."""

    keep_days: int = param(
        "days after which a settled task is forgotten", default=30, minimum=1, maximum=36500, unit="d"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole of autodl.toml."""

    max_tasks_num: int = param("downloads at once, over all users", default=10, minimum=1, maximum=1000)
    transfer: TransferSection = field(default_factory=TransferSection)
    retry: RetrySection = field(default_factory=RetrySection)
    access: AccessSection = field(default_factory=AccessSection)
    limits: LimitsSection = field(default_factory=LimitsSection)
    history: HistorySection = field(default_factory=HistorySection)


SECTIONS: dict[str, type[Any]] = {
    "transfer": TransferSection,
    "retry": RetrySection,
    "access": AccessSection,
    "limits": LimitsSection,
    "history": HistorySection,
}


def known_keys() -> tuple[str, ...]:
    """Return every key as it is spelled in messages: `max_tasks_num`, `transfer.connections`, ..."""
    inner = [f"{section}.{f.name}" for section, cls in SECTIONS.items() for f in fields(cls)]
    return ("max_tasks_num", *inner)


def settings_from_toml(document: Mapping[str, Any], where: str) -> Settings:
    """Build Settings from a parsed TOML document; `where` names the file in messages.

    Raises: BadSettings.
    """
    for key, value in document.items():
        if key in SECTIONS:
            if not isinstance(value, dict):
                raise BadSettings(f"{where}: {key} must be a table: write [{key}]")
            for inner in value:
                _check_known(f"{key}.{inner}", where)
        else:
            _check_known(key, where)
    try:
        sections = {key: decode_fields(cls, document.get(key, {}), context=f"{key}.") for key, cls in SECTIONS.items()}
        top = {key: value for key, value in document.items() if key not in SECTIONS}
        return decode_fields(Settings, {**top, **sections}, context="")
    except InvalidParams as error:
        raise BadSettings(f"{where}: {error}") from None


def _check_known(key: str, where: str) -> None:
    known = known_keys()
    if key in known:
        return
    last = key.rpartition(".")[2]
    near = get_close_matches(key, known, n=1, cutoff=0.5) or [k for k in known if k.rpartition(".")[2] == last][:1]
    hint = f"; did you mean {near[0]}?" if near else f"; known keys: {', '.join(known)}"
    raise BadSettings(f"{where}: unknown key {key}{hint}")
