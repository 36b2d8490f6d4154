"""Requests that look at one task.

Runs as: everyone.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from typing import ClassVar

from autodl_lib.contract.errors import AutodlError, NoSuchTask
from autodl_lib.contract.fields import param
from autodl_lib.contract.light_dataclass import dataclass
from autodl_lib.contract.requests.terms import Access


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Show one task."""

    method: ClassVar[str] = "status"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NoSuchTask,)
    changes: ClassVar[bool] = False

    id: int = param("the task's number", metavar="ID", minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Show what happened to a task, oldest first."""

    method: ClassVar[str] = "log"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NoSuchTask,)
    changes: ClassVar[bool] = False

    id: int = param("the task's number", metavar="ID", minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explain:
    """Say in one sentence why a task is not running."""

    method: ClassVar[str] = "explain"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NoSuchTask,)
    changes: ClassVar[bool] = False

    id: int = param("the task's number", metavar="ID", minimum=1)
