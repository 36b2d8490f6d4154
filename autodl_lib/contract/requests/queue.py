"""Requests that steer the queue as a whole; pause and resume: or tasks of it.

Runs as: everyone.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from typing import ClassVar

from autodl_lib.contract.errors import AutodlError, InvalidParams, NoSuchTask, NotAllowed, ShuttingDown, WrongState
from autodl_lib.contract.fields import param
from autodl_lib.contract.light_dataclass import dataclass
from autodl_lib.contract.requests.terms import MAX_IDS, Access


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Start no new downloads, for some seconds or until `resume`; with ids, set just these tasks aside."""

    method: ClassVar[str] = "pause"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (InvalidParams, NoSuchTask, WrongState, NotAllowed, ShuttingDown)
    changes: ClassVar[bool] = True

    seconds: float | None = param(
        "for so long; until `resume` when not given",
        default=None,
        metavar="SECONDS",
        unit="s",
        minimum=0,
        maximum=10**9,
    )
    ids: tuple[int, ...] = param(
        "pause this task, also in mid-download; may be repeated",
        default=(),
        cli=("--id",),
        metavar="ID",
        minimum=1,
        max_items=MAX_IDS,
    )
    all: bool = param("hold the queues of all users (administrators)", default=False, cli=("-a", "--all"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Start new downloads again; with ids, let just these paused tasks go on."""

    method: ClassVar[str] = "resume"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NoSuchTask, WrongState, NotAllowed, ShuttingDown)
    changes: ClassVar[bool] = True

    ids: tuple[int, ...] = param(
        "let this paused task go on; may be repeated",
        default=(),
        cli=("--id",),
        metavar="ID",
        minimum=1,
        max_items=MAX_IDS,
    )
    all: bool = param("lift the hold on all users' queues (administrators)", default=False, cli=("-a", "--all"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Clear:
    """Drop all that is enqueued or waits for another try; running downloads go on."""

    method: ClassVar[str] = "clear"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NotAllowed, ShuttingDown)
    changes: ClassVar[bool] = True

    all: bool = param("the tasks of all users (administrators)", default=False, cli=("-a", "--all"))


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxTasks:
    """Show how many tasks may run at once, or change it (administrators), at once."""

    method: ClassVar[str] = "max_tasks"
    access: ClassVar[Access] = Access.ANYONE
    errors: ClassVar[tuple[type[AutodlError], ...]] = (NotAllowed, InvalidParams, ShuttingDown)
    changes: ClassVar[bool] = True

    max_tasks_num: int | None = param(
        "the new number; not given, the present one is shown", default=None, metavar="N", minimum=1, maximum=1000
    )
