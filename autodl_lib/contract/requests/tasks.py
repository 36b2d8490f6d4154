"""Requests that steer single tasks.

Runs as: everyone.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from typing import ClassVar

from autodl_lib.contract.errors import AutodlError, NoSuchTask, QueueFull, ShuttingDown, WrongState
from autodl_lib.contract.fields import param
from autodl_lib.contract.light_dataclass import dataclass
from autodl_lib.contract.requests.terms import MAX_IDS, PRIORITY_RANGE, Access


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
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NoSuchTask, WrongState, QueueFull, ShuttingDown)
    changes: ClassVar[bool] = True

    ids: tuple[int, ...] = param("the tasks' numbers", metavar="ID", minimum=1, min_items=1, max_items=MAX_IDS)


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
