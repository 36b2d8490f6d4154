"""Requests that look at many tasks at once.

Runs as: everyone.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from typing import ClassVar

from autodl_lib.contract.errors import AutodlError, InvalidParams, NotAllowed
from autodl_lib.contract.fields import param
from autodl_lib.contract.light_dataclass import dataclass
from autodl_lib.contract.requests.terms import MAX_LABEL_LENGTH, Access
from autodl_lib.contract.states import TaskState


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
class Stats:
    """Count tasks by state, answers by response code over the last 10 minutes, bytes and speed."""

    method: ClassVar[str] = "stats"
    access: ClassVar[Access] = Access.ANYONE
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NotAllowed,)
    changes: ClassVar[bool] = False

    all: bool = param("those of all users (administrators)", default=False, cli=("-a", "--all"))
