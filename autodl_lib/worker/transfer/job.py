"""What a transfer is to fetch, whom it works for, and how a request for a piece of it is worded.

Runs as: the task's owner.  Talks to: nobody; no I/O.
Invariants: a range is asked for together with a validator of that same source (If-Range), unless the source has
shown that it does not understand that; another source's validator is never sent.
Source: RFC 9110 (sections 13.1.3, 13.1.5, 14.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from autodl_lib.contract.transfer_options import NO_OPTIONS, TransferOptions
from autodl_lib.contract.worker_messages import Assign, TransferSettings
from autodl_lib.worker.files.part_file import PartFile
from autodl_lib.worker.network.login_options import has_same_origin, of_mirror
from autodl_lib.worker.network.request_options import Request, encode_headers, encode_url
from autodl_lib.worker.network.response import Accept, ResumePoint
from autodl_lib.worker.network.response_head import ResponseHead
from autodl_lib.worker.network.verdicts import Verdict
from autodl_lib.worker.transfer.sources import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to fetch and how: the URL and its mirrors, and for each what it was granted.

    `is_plain`: one connection only; `preferred`: the source to begin with; `newer_than`: an HTTP date, only what is
    newer is wanted.
    """

    urls: tuple[str, ...]
    granted: tuple[int, ...]
    headers: tuple[str, ...]
    limit_rate_bps: int
    settings: TransferSettings
    options: TransferOptions = NO_OPTIONS
    is_plain: bool = False
    preferred: int = 0
    newer_than: str | None = None

    def has_checksum(self) -> bool:
        """Tell whether the whole file's bytes will be checked in the end."""
        return has_checksum(self.options)


def has_checksum(options: TransferOptions) -> bool:
    """Tell whether a task says what the whole file's bytes must be."""
    return bool(options.checksums) or options.pieces is not None


class TransferOwner(Protocol):
    """Who a transfer works for."""

    def open_part(self, accepted: Accept, head: ResponseHead | None, source: Source) -> PartFile:
        """Return the part file for the first accepted response. Raises: TaskFailed, OSError."""

    def note(self, text: str) -> None:
        """Tell the task's history something."""

    def write_back(self, offset: int, length: int) -> None:
        """Have bytes that were written go on to the disk; nobody waits for it."""

    def unchanged(self, source: Source) -> None:
        """Hear that there is nothing newer; the transfer has ended. Never raises."""

    def transfer_ended(self, failure: Verdict | None, source: int) -> None:
        """Hear that the file is complete, or why not and which source's failure that is. Never raises."""


def validator_for(source: Source, asked: ResumePoint | None, *, is_main: bool) -> str | None:
    """Return what to send as If-Range, None where nothing can be or the source does not understand it.

    `is_main`: the source named the version that is asked for.
    """
    if asked is None or not source.is_http or not source.takes_if_range:
        return None
    version = source.version or (asked.version if is_main else None)
    return None if version is None else version.etag or version.last_modified or None


def whole_request(assign: Assign, settings: TransferSettings) -> Request:
    """Return the request for the whole file of a task's URL.

    Raises: TaskFailed, when it can't be worded.
    """
    return Request(
        url=encode_url(assign.url),
        headers=encode_headers(assign.headers),
        resume_from=0,
        limit_rate_bps=assign.limit_rate_bps,
        settings=settings,
        options=assign.options,
    )


def request_for(job: Job, source: Source, asked: ResumePoint | None, validator: str | None) -> Request:
    """Return the request for a range, or for the whole file (`asked` is None); another host gets no login.

    Raises: TaskFailed, when it can't be worded.
    """
    lines: list[str] = []
    if source.is_http and asked is not None:
        last = "" if asked.end is None else str(asked.end - 1)
        lines.append(f"Range: bytes={asked.offset}-{last}")
        if validator is not None:
            lines.append(f"If-Range: {validator}")
    elif source.is_http and job.newer_than is not None:
        lines.append(f"If-Modified-Since: {job.newer_than}")
    options, headers = job.options, job.headers
    if source.index and not has_same_origin(source.url, job.urls[0]):
        options, headers = of_mirror(options, headers)
    return Request(
        url=encode_url(source.url),
        headers=encode_headers((*headers, *lines)),
        resume_from=asked.offset if asked is not None and not source.is_http else 0,
        limit_rate_bps=job.limit_rate_bps,
        settings=job.settings,
        options=options,
    )
