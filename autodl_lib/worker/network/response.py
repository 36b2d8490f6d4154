"""Whether a response's body may become bytes of the file: what its head is to say for that.

Runs as: the task's owner.  Talks to: nobody; no I/O.
Invariants: a body is taken only after `judge` accepted its head, and bytes of a 206 only when range, size and
validators fit what the part file holds, and the coding of the bytes; of FTP and SFTP, size and time.
Source: RFC 9110 (sections 8.8, 10.2.3, 13.1.5, 14.4, 15.3.7).
"""

from __future__ import annotations

import email.utils
import re
import time
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache

from autodl_lib.contract.failures import FailureCode
from autodl_lib.worker.network.response_head import ResponseHead, content_length
from autodl_lib.worker.network.verdicts import Verdict, http_verdict

MAX_RETRY_AFTER_S = 86400.0
_MAX_VALIDATOR_LENGTH = 1024
_MAX_CODING_LENGTH = 64
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_END_OF_TIME_S = 253402300800
"""The year 10000, which no HTTP date can name."""
_CONTENT_RANGE = re.compile(r"bytes[ \t]+([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.IGNORECASE)

REMOTE_CHANGED_NOTE = "the remote file changed; starting over"
NO_RANGES_NOTE = "the server can't resume this file; starting over"
OTHER_RANGE_NOTE = "the server sent another range than asked for; starting over"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteVersion:
    """What tells one version of the remote file from another; None where the server didn't say."""

    size: int | None
    etag: str | None
    last_modified: str | None
    coding: str = ""
    """What the file's bytes were made into on the way (Content-Encoding); "" where they came as they are."""

    def has_validator(self) -> bool:
        """Tell whether a later request can be tied to this version."""
        return self.etag is not None or self.last_modified is not None

    def differs_from(self, other: RemoteVersion) -> bool:
        """Tell whether anything that both versions name is different, or how their bytes are coded."""
        return self.coding != other.coding or any(
            mine is not None and theirs is not None and mine != theirs
            for mine, theirs in (
                (self.size, other.size),
                (self.etag, other.etag),
                (self.last_modified, other.last_modified),
            )
        )

    def proves(self, other: RemoteVersion) -> bool:
        """Tell whether a validator is the same in both, and nothing differs."""
        same = (self.etag is not None and self.etag == other.etag) or (
            self.last_modified is not None and self.last_modified == other.last_modified
        )
        return same and not self.differs_from(other)

    def agrees(self, other: RemoteVersion, agreement: Agreement) -> bool:
        """Tell whether bytes of this version may stand beside bytes of the other one."""
        match agreement:
            case Agreement.VERSION:
                return self.proves(other)
            case Agreement.MIRROR:
                same_etag = self.etag is not None and self.etag == other.etag
                same_time = self.last_modified is not None and self.last_modified == other.last_modified
                return self.size == other.size and (same_etag or same_time)
            case Agreement.SIZE:
                return self.size == other.size


class Agreement(Enum):
    """What makes bytes of two responses parts of one file.

    A validator and all that both name; for another server (a mirror), whose ETags are its own, the size and either
    validator; the size alone where a checksum of the whole file decides in the end.
    """

    VERSION = "version"
    MIRROR = "mirror"
    SIZE = "size"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumePoint:
    """What was asked for: the bytes from `offset` up to, not including, `end` (None: to the end), of this version."""

    offset: int
    version: RemoteVersion
    end: int | None = None
    agreement: Agreement = Agreement.VERSION
    proof_end: int = 0
    """Up to there, the bytes from `offset` on are here already, and must be the same ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """The body is the file from `offset` up to `end` (None: as far as it goes).

    `note` says why an earlier part is thrown away; `seen` is the version as this response named it.
    """

    offset: int
    version: RemoteVersion
    seen: RemoteVersion
    end: int | None = None
    note: str | None = None
    is_part: bool = False
    """Whether it goes on from what is there; if not, it is the whole file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskAgain:
    """The body is useless and so is the part: ask for the whole file. `is_changed`: the file is another one now."""

    note: str
    is_changed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchanged:
    """There is nothing newer than what the request named (304)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """The attempt has failed."""

    verdict: Verdict


Judgement = Accept | AskAgain | Refuse | Unchanged
_WHOLE = frozenset({200, 203})
"""Statuses of an answer that is the file; 203 (RFC 9110, 15.3.4) is a 200 that a proxy on the way may have changed."""


def judge(head: ResponseHead, asked: ResumePoint | None, *, is_conditional: bool = False) -> Judgement:
    """Decide about an HTTP response's body; `asked` is None when the whole file was asked for.

    `is_conditional`: only what is newer was asked for.
    """
    if head.contradiction:
        words = f"the server's answer makes no sense: {head.contradiction}"
        return Refuse(verdict=Verdict(code=FailureCode.PROTOCOL, message=words))
    if head.status < 100:
        words = f"the server's answer is no HTTP: its status is {head.status}"
        return Refuse(verdict=Verdict(code=FailureCode.PROTOCOL, message=words))
    if head.status < 400 and not head.is_whole:
        words = "the server's answer broke off in its head"
        return Refuse(verdict=Verdict(code=FailureCode.TRUNCATED, message=words, http_status=head.status))
    if head.status in _WHOLE:
        version = _version(head, content_length(head))
        if asked is None:
            return Accept(offset=0, version=version, seen=version, end=version.size)
        if version.size is None and version.etag is not None and version.etag == asked.version.etag:
            version = replace(version, size=asked.version.size)  # it was said before, of these very bytes
        if not version.proves(asked.version):
            # It may be the file as it is now, or a page about something else: asked plainly, the server will tell.
            return AskAgain(note=REMOTE_CHANGED_NOTE, is_changed=True)
        return Accept(offset=0, version=version, seen=version, end=version.size, note=NO_RANGES_NOTE)
    if head.status == 206 and asked is not None:
        return _judge_range(head, asked)
    if head.status == 416 and asked is not None:
        return AskAgain(note=REMOTE_CHANGED_NOTE, is_changed=True)
    if head.status == 304 and is_conditional:
        return Unchanged()
    if head.status == 206:
        words = "the server sent a part of the file that was not asked for"
        return Refuse(verdict=Verdict(code=FailureCode.HTTP_ERROR, message=words, http_status=206))
    return Refuse(verdict=http_verdict(head.status, head.reason, retry_after(head.fields.get("retry-after"))))


def judge_headless(total: int | None, changed_at: int | None, asked: ResumePoint | None) -> Judgement:
    """Decide about an FTP or SFTP file by its size and the time of its last change, None for what nobody knows."""
    version = RemoteVersion(size=total, etag=None, last_modified=_http_date(changed_at))
    if asked is None:
        return Accept(offset=0, version=version, seen=version, end=total)
    is_same = version.size == asked.version.size and version.agrees(asked.version, asked.agreement)
    if total is None or not is_same:
        return AskAgain(note=REMOTE_CHANGED_NOTE, is_changed=True)
    return Accept(offset=asked.offset, version=asked.version, seen=version, end=total, is_part=True)


def _http_date(at_s: int | None) -> str | None:
    """Return a time as Last-Modified has it; None for 0, which is what is sent of files whose time nobody kept."""
    return email.utils.formatdate(at_s, usegmt=True) if at_s is not None and 0 < at_s < _END_OF_TIME_S else None


def _judge_range(head: ResponseHead, asked: ResumePoint) -> Judgement:
    accepted = judge_unbound(head, asked)
    if accepted is None:
        return AskAgain(note=OTHER_RANGE_NOTE)
    if not accepted.seen.agrees(asked.version, asked.agreement):
        return AskAgain(note=REMOTE_CHANGED_NOTE, is_changed=True)
    return replace(accepted, version=replace(asked.version, size=accepted.seen.size))


def judge_unbound(head: ResponseHead, asked: ResumePoint) -> Accept | None:
    """Accept a 206 for the range that it must have, of whatever version; None when it is another one."""
    content_range = parse_content_range(head.fields.get("content-range", ""))
    if head.status != 206 or content_range is None or content_range[0] != asked.offset:
        return None
    if head.fields.get("content-type", "").lower().startswith("multipart/byteranges"):
        return None
    first, last, total = content_range
    length = content_length(head)
    if (length is not None and length != last - first + 1) or (asked.end is not None and last >= asked.end):
        return None
    version = _version(head, total if total is not None else asked.version.size)
    return Accept(offset=asked.offset, version=version, seen=version, end=last + 1, is_part=True)


def parse_content_range(value: str) -> tuple[int, int, int | None] | None:
    """Return first byte, last byte and total (None for `*`) of a Content-Range, or None when it is wrong."""
    match = _CONTENT_RANGE.fullmatch(value.strip())
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if last < first or (total is not None and last >= total):
        return None
    return first, last, total


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After asks for, at most a day, or None when it makes no sense."""
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value[:12]), MAX_RETRY_AFTER_S)
    try:
        when = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, when - time.time()), MAX_RETRY_AFTER_S)


def is_later(date: str, other: str) -> bool:
    """Tell whether an HTTP date is later than another; True when that can't be known."""
    try:
        return email.utils.parsedate_to_datetime(date) > email.utils.parsedate_to_datetime(other)
    except (ValueError, TypeError, OverflowError):
        return True


def _version(head: ResponseHead, size: int | None) -> RemoteVersion:
    """Return what a head says of the file, without validators that two versions may share."""
    etag = head.fields.get("etag")
    if etag is not None and not (len(etag) >= 2 and etag.startswith('"') and etag.endswith('"') and _is_plain(etag)):
        etag = None
    last_modified = head.fields.get("last-modified") or None
    if last_modified is not None and (not _is_plain(last_modified) or _is_fresh(last_modified, head)):
        last_modified = None
    coding = head.fields.get("content-encoding", "").lower()
    if coding == "identity":
        coding = ""
    if coding and (len(coding) > _MAX_CODING_LENGTH or not _is_plain(coding)):
        return RemoteVersion(size=size, etag=None, last_modified=None)  # nobody can tell two of those apart
    return RemoteVersion(size=size, etag=etag, last_modified=last_modified, coding=coding)


def _is_fresh(last_modified: str, head: ResponseHead) -> bool:
    """Tell whether the file was changed in the very second of the answer: it may change again, and keep that date.

    Source: RFC 9110 (section 8.8.2.2).
    """
    date = head.fields.get("date")
    if date is None:
        return False
    day, other = _day(date[5:16]), _day(last_modified[5:16])
    if day is None or other is None:
        return not is_later(date, last_modified)
    return date[17:25] <= last_modified[17:25] if day == other else day < other


@lru_cache(maxsize=64)
def _day(text: str) -> tuple[int, int, int] | None:
    """Return the year, month and day of `06 Nov 1994`, None for anything else."""
    day, _, rest = text.partition(" ")
    month, _, year = rest.partition(" ")
    if month not in _MONTHS or not (day.isascii() and day.isdigit() and year.isascii() and year.isdigit()):
        return None
    return int(year), _MONTHS.index(month), int(day)


def _is_plain(value: str) -> bool:
    return len(value) <= _MAX_VALIDATOR_LENGTH and value.isascii() and value.isprintable()
