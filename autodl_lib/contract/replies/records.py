"""Answers about what happened, and why.

Runs as: everyone.  Talks to: nobody; no I/O.
Invariants: field names are fixed points of `--json`.
"""

from __future__ import annotations

from autodl_lib.contract.light_dataclass import dataclass


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
