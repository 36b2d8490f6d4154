"""What a segment's response is: the file, a part of it that fits, or something else; and what its end means.

Runs as: the task's owner.  Talks to: a segment's connection, for what it has seen.
A response over HTTP is judged by its head, when its first byte or its end comes; one over FTP or SFTP by the size
and the time that libcurl tells, which it does only outside of its callbacks.
Invariants: once a response was accepted for a file, further ones are accepted only as parts of it.
"""

from __future__ import annotations

from dataclasses import replace

from autodl_lib.contract.failures import FailureCode
from autodl_lib.worker.network.response import (
    NO_RANGES_NOTE,
    OTHER_RANGE_NOTE,
    REMOTE_CHANGED_NOTE,
    Accept,
    AskAgain,
    Judgement,
    Refuse,
    Unchanged,
    is_later,
    judge,
    judge_headless,
)
from autodl_lib.worker.network.response_head import ResponseHead
from autodl_lib.worker.network.verdicts import CANNOT_RESUME, CurlResult, Verdict, curl_verdict, host_and_port
from autodl_lib.worker.transfer.job import Job
from autodl_lib.worker.transfer.segment import Segment

_OUT_OF_MEMORY = 27


def judge_head(job: Job, segment: Segment, *, is_first: bool) -> Judgement:
    """Decide about an HTTP response; `is_first`: none was accepted so far."""
    judgement = judge(segment.connection.head(), segment.asked, is_conditional=job.newer_than is not None)
    if isinstance(judgement, Accept) and not judgement.is_part:
        if _is_current(job, segment.connection.head()):
            return Unchanged()
        if judgement.note == NO_RANGES_NOTE and segment.wanted_if_range and segment.source.takes_if_range:
            # Some servers answer so though nothing has changed: what a 206 says without it is compared all the same.
            segment.source.takes_if_range = False
            return AskAgain(note="")
    if isinstance(judgement, Refuse) and _is_of_another(segment):
        return Refuse(verdict=replace(judgement.verdict, is_of_another=True))
    return _fitting(job, segment, judgement, is_first=is_first)


def judge_without_head(job: Job, segment: Segment, *, is_first: bool) -> Judgement:
    """Decide about an FTP or SFTP file. Outside of libcurl only."""
    if segment.asked is not None and segment.source.is_http:
        return AskAgain(note=NO_RANGES_NOTE)  # the range was asked for in HTTP, so FTP sends all of the file
    remaining = segment.connection.announced_length()
    total = None if remaining is None else segment.start + remaining
    return _fitting(
        job, segment, judge_headless(total, segment.connection.file_time(), segment.asked), is_first=is_first
    )


def judge_end(job: Job, segment: Segment, result: CurlResult, *, is_first: bool) -> Judgement | None:
    """Decide about a response that ended before its body came; None when there was none."""
    if segment.speaks_http():
        status = segment.connection.head().status
        has_answered = result.code == 0 or status >= 400 or status == 304
        return judge_head(job, segment, is_first=is_first) if has_answered else None
    if result.code in CANNOT_RESUME and segment.asked is not None:
        return AskAgain(note=NO_RANGES_NOTE)
    return judge_without_head(job, segment, is_first=is_first) if result.code == 0 else None


def failure_of(job: Job, segment: Segment, result: CurlResult) -> Verdict:
    """Say what it means that a request ended and its bytes are not all there."""
    if result.code == _OUT_OF_MEMORY and not segment.is_accepted:  # libcurl 7.88, of a head that has no end
        return Verdict(code=FailureCode.PROTOCOL, message=f"{segment.source.host} sends too long a head")
    if result.code:
        return curl_verdict(result, segment.source.url, job.options)
    size = segment.natural_end if segment.natural_end is not None else segment.end
    words = f"the server sent {segment.position} of {size} bytes"
    return Verdict(code=FailureCode.TRUNCATED, message=words, http_status=result.status)


def unended(segment: Segment) -> Verdict:
    """Say that a part came of a file whose size nobody tells: what follows it is for the next attempt to ask."""
    words = f"the server sent a part that ends at byte {segment.position}, and does not say whether that is all"
    return Verdict(code=FailureCode.TRUNCATED, message=words)


def _fitting(job: Job, segment: Segment, judgement: Judgement, *, is_first: bool) -> Judgement:
    """Return the judgement, in the light of what the task says and of what was accepted before."""
    if not isinstance(judgement, Accept):
        return judgement
    size, expected = judgement.version.size, job.options.size_bytes
    if expected is not None and size not in (None, expected):
        words = f"{segment.source.host} has a file of {size} bytes, and it should have {expected}"
        return Refuse(verdict=Verdict(code=FailureCode.CHECKSUM, message=words))
    if is_first or judgement.is_part:
        return judgement
    is_changed = judgement.note == REMOTE_CHANGED_NOTE
    return AskAgain(note=judgement.note or OTHER_RANGE_NOTE, is_changed=is_changed)


def _is_of_another(segment: Segment) -> bool:
    """Tell whether redirects have led to another host than the source's."""
    asked = now = segment.source.host_key
    for location in segment.connection.head().locations:
        if "://" in location[:10] or location.startswith("//"):
            now = ":".join(host_and_port(location if location[:2] != "//" else f"http:{location}"))
    return now != asked


def _is_current(job: Job, head: ResponseHead) -> bool:
    """Tell whether a server that pays no heed to If-Modified-Since has nothing newer."""
    last_modified = head.fields.get("last-modified")
    return bool(job.newer_than and last_modified) and not is_later(last_modified or "", job.newer_than or "")
