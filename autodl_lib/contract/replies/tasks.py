"""Answers that name tasks or show them.

Runs as: everyone.  Talks to: nobody; no I/O.
Invariants: field names are fixed points of `--json`.
"""

from __future__ import annotations

from autodl_lib.contract.light_dataclass import dataclass
from autodl_lib.contract.task import Task


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
class Saved:
    """What a brief `watch` tells of finished tasks, as the params of a notification `saved`: the path of each file."""

    ids: tuple[int, ...]
    dests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """Answer to watch, sent after the first picture of each task; `settled` counts those already at their end."""

    tasks: int
    settled: int
