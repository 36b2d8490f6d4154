"""Answers about the queue as a whole.

Runs as: everyone.  Talks to: nobody; no I/O.
Invariants: field names are fixed points of `--json`.
"""

from __future__ import annotations

from autodl_lib.contract.light_dataclass import dataclass


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
