"""Requests that change how fast, and from where, tasks are downloaded.

Runs as: everyone.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from typing import ClassVar

from autodl_lib.contract.errors import (
    AutodlError,
    BadUrl,
    InvalidParams,
    NoSuchTask,
    NotAllowed,
    ShuttingDown,
    WrongState,
)
from autodl_lib.contract.fields import param
from autodl_lib.contract.light_dataclass import dataclass
from autodl_lib.contract.requests.terms import MAX_IDS, Access
from autodl_lib.contract.urls import MAX_URL_LENGTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Show limits in bytes a second, or change them at once: yours, a task's, the whole daemon's."""

    method: ClassVar[str] = "limit"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (InvalidParams, NoSuchTask, WrongState, NotAllowed, ShuttingDown)
    changes: ClassVar[bool] = True

    rate_bps: int | None = param(
        "the new limit, 0 for none; not given, the present one is shown",
        default=None,
        metavar="RATE",
        unit="B/s",
        minimum=0,
    )
    ids: tuple[int, ...] = param(
        "the limit of this task; may be repeated",
        default=(),
        cli=("--id",),
        metavar="ID",
        minimum=1,
        max_items=MAX_IDS,
    )
    daemon: bool = param(
        "the limit of all downloads together (administrators change it)", default=False, cli=("--daemon",)
    )
    user: str | None = param(
        "the limit of this user's downloads together (administrators)",
        default=None,
        cli=("--user",),
        metavar="NAME",
        max_length=256,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUrl:
    """Give a task another URL of the same file; what it has downloaded is kept."""

    method: ClassVar[str] = "set_url"
    access: ClassVar[Access] = Access.OWNER
    errors: ClassVar[tuple[type[AutodlError], ...]] = (BadUrl, NoSuchTask, NotAllowed, WrongState, ShuttingDown)
    changes: ClassVar[bool] = True

    id: int = param("the task's number", metavar="ID", minimum=1)
    url: str = param("where the file is now", metavar="URL", max_length=MAX_URL_LENGTH)
