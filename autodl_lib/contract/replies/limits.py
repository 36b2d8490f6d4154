"""Answers about how fast, and from where, tasks are downloaded.

Runs as: everyone.  Talks to: nobody; no I/O.
Invariants: field names are fixed points of `--json`.
"""

from __future__ import annotations

from autodl_lib.contract.light_dataclass import dataclass
from autodl_lib.contract.states import TaskState


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
