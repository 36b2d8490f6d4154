"""The request that queues downloads.

Runs as: everyone.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from typing import ClassVar

from autodl_lib.contract.errors import AutodlError, BadUrl, InvalidParams, NotAllowed, QueueFull, ShuttingDown
from autodl_lib.contract.fields import param
from autodl_lib.contract.light_dataclass import dataclass
from autodl_lib.contract.requests.terms import MAX_HEADER_LENGTH, MAX_LABEL_LENGTH, PRIORITY_RANGE, Access
from autodl_lib.contract.task import OnConflict
from autodl_lib.contract.transfer_options import OptionGroup, TransferOptions
from autodl_lib.contract.urls import MAX_URL_LENGTH

DEFAULT_DIR = "~/autodl-storage"
MAX_URLS_PER_ADD = 20_000
MAX_COPIES_LENGTH = 8 * 1024 * 1024
"""What one `add` may ask beside its URLs, once for each of them: every task keeps its own copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(TransferOptions):
    """Queue URLs for download; the answer comes when they are on disk."""

    method: ClassVar[str] = "add"
    access: ClassVar[Access] = Access.ANYONE
    errors: ClassVar[tuple[type[AutodlError], ...]] = (BadUrl, InvalidParams, NotAllowed, QueueFull, ShuttingDown)
    changes: ClassVar[bool] = True

    urls: tuple[str, ...] = param(
        "what to download", metavar="URL", max_length=MAX_URL_LENGTH, min_items=1, max_items=MAX_URLS_PER_ADD
    )
    dir: str = param(
        "the folder to save to: an absolute path, or one that begins with ~",
        default=DEFAULT_DIR,
        cli=("-d", "--dir"),
        metavar="DIR",
        group=OptionGroup.SAVING,
    )
    output: str | None = param(
        "the name to save under, for a single URL",
        default=None,
        cli=("-o", "--output"),
        metavar="NAME",
        max_length=255,
        group=OptionGroup.SAVING,
    )
    priority: int = param(
        "tasks of a higher number start first",
        default=0,
        cli=("--priority",),
        metavar="N",
        minimum=-PRIORITY_RANGE,
        maximum=PRIORITY_RANGE,
        group=OptionGroup.QUEUEING,
    )
    headers: tuple[str, ...] = param(
        "a line to add to the HTTP request, such as 'Accept: text/plain'; may be repeated",
        default=(),
        cli=("-H", "--header"),
        metavar="LINE",
        max_length=MAX_HEADER_LENGTH,
        max_items=100,
        secret=True,
        group=OptionGroup.ASKING,
    )
    limit_rate_bps: int = param(
        "the most bytes a second for each of these tasks; 0 is no limit",
        default=0,
        cli=("--limit-rate",),
        metavar="RATE",
        unit="B/s",
        minimum=0,
        group=OptionGroup.QUEUEING,
    )
    paused: bool = param(
        "queue them paused; `autodl resume --id` starts them",
        default=False,
        cli=("--paused",),
        group=OptionGroup.QUEUEING,
    )
    label: str | None = param(
        "a word of your own for these tasks, by which `autodl list --label` finds them",
        default=None,
        cli=("--label",),
        metavar="WORD",
        max_length=MAX_LABEL_LENGTH,
        group=OptionGroup.QUEUEING,
    )
    on_conflict: OnConflict = param(
        "when the name is taken: save as NAME.1.EXT, fail the task, or replace the file",
        default=OnConflict.RENAME,
        cli=("--on-conflict",),
        group=OptionGroup.SAVING,
    )
