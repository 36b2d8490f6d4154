"""The request that streams tasks as they change.

Runs as: everyone.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from typing import ClassVar

from autodl_lib.contract.errors import AutodlError, Busy, InvalidParams, NoSuchTask, NotAllowed
from autodl_lib.contract.fields import param
from autodl_lib.contract.light_dataclass import dataclass
from autodl_lib.contract.requests.terms import MAX_IDS, Access


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Stream tasks as they change: first each as it is now, then a notification `task` for every change."""

    method: ClassVar[str] = "watch"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (InvalidParams, NoSuchTask, NotAllowed, Busy)
    changes: ClassVar[bool] = False

    ids: tuple[int, ...] | None = param(
        "the tasks to follow; null for all that the caller has",
        default=None,
        metavar="ID",
        minimum=1,
        max_items=MAX_IDS,
    )
    progress: bool = param("also notify when only the bytes have changed", default=True)
    all: bool = param("the tasks of all users (administrators)", default=False, cli=("-a", "--all"))
    ends: bool = param("notify of tasks that are settled only", default=False)
    brief: bool = param("tell of finished tasks by a notification `saved`, many in one", default=False)
