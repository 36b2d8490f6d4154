"""One file's way from the network into its part file: the first response, the connections that help it, and the end.

Runs as: the task's owner.  Talks to: connections; the part file that its owner opens for it; spreading.
It begins with one request. Once its response is accepted, the file's version and size are known, and `Spreading`
may add connections, each of whose responses must prove to be of that version. Where they don't fit together, it
starts over once, with one plain connection.
Invariants: no byte reaches the part file before its response's head was accepted; the owner hears of the end
exactly once.
How it fails: a Verdict to the owner; bytes that were accepted until then are in the part file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pycurl

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import NO_OPTIONS, TransferOptions
from autodl_lib.contract.worker_messages import TransferSettings
from autodl_lib.worker.byte_ranges import ByteRanges
from autodl_lib.worker.connection import Answer, Connection, Connections
from autodl_lib.worker.control_file import Ranges
from autodl_lib.worker.part_file import PartFile
from autodl_lib.worker.rate_limiter import RateLimiter
from autodl_lib.worker.request_options import Request, encode_headers, encode_url
from autodl_lib.worker.response import (
    NO_RANGES_NOTE,
    OTHER_RANGE_NOTE,
    REMOTE_CHANGED_NOTE,
    Accept,
    AskAgain,
    Judgement,
    Refuse,
    RemoteVersion,
    ResponseHead,
    ResumePoint,
    Unchanged,
    is_later,
    judge,
    judge_by_size,
)
from autodl_lib.worker.segment import Segment
from autodl_lib.worker.sources import Source, Sources
from autodl_lib.worker.speed import Speed
from autodl_lib.worker.spreading import LEAST_FILE_BYTES, Spreading
from autodl_lib.worker.verdicts import (
    CANNOT_RESUME,
    CurlResult,
    TaskFailed,
    Verdict,
    curl_verdict,
    os_verdict,
    with_status,
)

_DRAIN_BYTES = 65536
_DRAIN_S = 1.0
_OUT_OF_MEMORY = 27
_NEVER = float("inf")
_NO_RESULT = CurlResult(code=0, message="", os_errno=0, status=None)

logger = logging.getLogger(__name__)


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
        return bool(self.options.checksums) or self.options.pieces is not None


class TransferOwner(Protocol):
    """Who a transfer works for."""

    def open_part(self, accepted: Accept, head: ResponseHead | None, source: Source) -> PartFile:
        """Return the part file for the first accepted response. Raises: TaskFailed, OSError."""

    def note(self, text: str) -> None:
        """Tell the task's history something."""

    def write_back(self, offset: int, length: int) -> None:
        """Have bytes that were written go on to the disk; nobody waits for it."""

    def unchanged(self, source: Source) -> None:
        """Hear that there is nothing newer; the transfer has ended."""

    def transfer_ended(self, failure: Verdict | None, source: int) -> None:
        """Hear that the file is complete, or why not and which source's failure that is."""


class Transfer:
    """One attempt to fetch one file."""

    def __init__(self, job: Job, owner: TransferOwner, connections: Connections) -> None:
        self.job = job
        self.received_bytes = 0
        self.status: int | None = None
        self.version: RemoteVersion | None = None
        """The file's version, once a response was accepted."""
        self.done = ByteRanges()
        self.sources = Sources(job.urls, job.granted, has_checksum=job.has_checksum(), preferred=job.preferred)
        self.segments: dict[Connection, Segment] = {}
        self.was_assembled = False
        """Whether the part file holds bytes of more than one response."""
        self._owner = owner
        self._connections = connections
        self._part: PartFile | None = None
        self._resume: tuple[Ranges, RemoteVersion] | None = None
        self._again: AskAgain | None = None
        self._started_over = False
        self._failure: tuple[Verdict, int] | None = None
        self._has_ended = False
        self._late: Segment | None = None
        self._drain_until_mono = _NEVER
        self._pause_until_mono = _NEVER
        self._active_mono = 0.0
        self._seen_bytes = 0
        self._speed = Speed()
        self._spreading: Spreading | None = None
        self._limiter = RateLimiter(job.limit_rate_bps, time.monotonic()) if job.limit_rate_bps else None
        self._throttled: list[Segment] = []

    # --- what the owner asks for ---

    def start(self, ranges: Ranges = (), version: RemoteVersion | None = None) -> None:
        """Send the first request: for the whole file, or for what `ranges` of `version` lack.

        Raises: TaskFailed.
        """
        self._resume = (ranges, version) if ranges and version is not None else None
        now = time.monotonic()
        self._speed.sample(self.received_bytes, now)
        self._open_first(now)

    def stop(self) -> None:
        """Stop without telling the owner; what was accepted is in the part file afterwards.

        Raises: OSError.
        """
        self._has_ended = True
        try:
            self.write_held()
        finally:
            self._close_all()

    def set_rate(self, limit_rate_bps: int) -> None:
        """Take at most so many bytes a second from now on, 0 is no limit."""
        now = time.monotonic()
        if limit_rate_bps == 0:
            self._limiter = None
            self._go_on(now)
        elif self._limiter is not None:
            self._limiter.set_rate(limit_rate_bps, now)
        else:
            self._limiter = RateLimiter(limit_rate_bps, now)
            for connection in self.segments:
                connection.pour_into(None)

    def grant(self, connections: tuple[int, ...]) -> None:
        """Use at most so many connections to each source; those beyond it are closed now."""
        self.sources.grant(connections)
        if self._spreading is not None and not self._has_ended:
            self._spreading.obey_grants(time.monotonic())

    def write_held(self) -> None:
        """Write what is only in memory.

        Raises: OSError.
        """
        for segment in tuple(self.segments.values()):
            self._count(segment)
            self._write(segment)

    def ranges(self) -> Ranges | None:
        """Return which ranges are in the part file, None when no response was accepted yet."""
        return None if self._part is None else self.done.ranges()

    def bytes_done(self) -> int:
        """Return the file's bytes that are here, from earlier attempts too."""
        if self._part is None:
            return sum(end - start for start, end in self._resume[0]) if self._resume is not None else 0
        held = sum(segment.held_bytes() for segment in self.segments.values() if segment.is_accepted)
        total = self.done.total() + held
        size = self.version.size if self.version is not None else None
        return total if size is None else min(total, size)

    def connection_count(self) -> int:
        """Return how many connections are at work."""
        return len(self.segments)

    def speed_bps(self, now: float) -> int:
        """Return the smoothed speed."""
        return self._speed.sample(self.received_bytes, now)

    def limit_bps(self) -> int:
        """Return the rate limit, 0 for none."""
        return self._limiter.rate_bps if self._limiter is not None else 0

    def wake_mono(self) -> float:
        """Return when `check` is to be called at the latest."""
        wake = min(self._drain_until_mono, self._pause_until_mono, self._stall_mono())
        if self._throttled and self._limiter is not None:
            wake = min(wake, time.monotonic() + self._limiter.wait_s())
        return wake if self._spreading is None else min(wake, self._spreading.wake_mono())

    def check(self, now: float) -> None:
        """Do what is due by time: let throttled connections go on, steer the others, end what has stalled."""
        if now >= self._drain_until_mono:
            for segment in tuple(self.segments.values()):
                if segment.judgement is not None:
                    segment.connection.stop()
                    self._end_segment(segment, _NO_RESULT)
            self._drain_until_mono = _NEVER
            return
        if now >= self._pause_until_mono:
            self._pause_until_mono = _NEVER
            self._guarded(lambda: self._steer(now))
        elif self._throttled and (self._limiter is None or self._limiter.may_take(now)):
            self._go_on(now)
        elif now >= self._stall_mono():
            host = next((segment.source.host for segment in self.segments.values()), "the server")
            words = f"{host} sent nothing for {self.job.settings.stall_timeout_s:g} s"
            self._fail(Verdict(code=FailureCode.STALLED, message=words), self._main_index())
            self._end()
        elif self._spreading is not None and not self._has_ended:
            self._guarded(lambda: self._steer(now))

    # --- what a connection tells (connection.Listener) ---

    def body_arrived(self, connection: Connection, data: bytes) -> Answer:
        """Take bytes of a body, inside of libcurl."""
        segment = self.segments.get(connection)
        if segment is None or self._has_ended:
            return Answer.STOP
        try:
            return self._take(segment, data)
        except Exception as error:  # noqa: BLE001  libcurl's caller would only print it
            self._fail(_verdict_of(error), segment.source.index)
            return Answer.STOP

    def basin_filled(self, connection: Connection) -> Answer:
        """Write what a connection has poured, inside of libcurl."""
        segment = self.segments.get(connection)
        if segment is None or self._has_ended or self._failure is not None:
            return Answer.STOP
        try:
            self._count(segment)
            self._write(segment)
        except Exception as error:  # noqa: BLE001  as above
            self._fail(_verdict_of(error), segment.source.index)
        return self._answer(segment)

    def connection_stepped(self, connection: Connection) -> None:
        """Hear that something may have happened, outside of libcurl."""
        segment = self.segments.get(connection)
        if segment is None:
            return
        seen = connection.bytes_seen()
        if seen != segment.seen_bytes:
            self._seen_bytes += seen - segment.seen_bytes
            segment.seen_bytes = seen
            self._active_mono = time.monotonic()
            self._count(segment)
        if self._late is segment:
            self._late = None
            self._guarded(lambda: self._decide_late(segment))
        elif segment.is_full() and segment.is_cut_short():
            connection.stop()
            self._end_segment(segment, _NO_RESULT)

    def connection_ended(self, connection: Connection, result: CurlResult) -> None:
        """Hear how a request ended."""
        segment = self.segments.get(connection)
        if segment is not None:
            self._end_segment(segment, result)

    # --- what Spreading asks for ---

    def open_range(self, source: Source, start: int, end: int, now: float) -> Segment | None:
        """Ask a source for a range with a connection more; None when libcurl doesn't take the request."""
        assert self.version is not None
        agreement = self.sources.agreement(source, self.version, is_first=False)
        asked = ResumePoint(offset=start, end=end, version=self.version, agreement=agreement)
        try:
            return self._open(source, asked, now)
        except TaskFailed as failure:
            source.failure = failure.verdict
            return None

    def close_segment(self, segment: Segment) -> None:
        """Stop a connection; what it has brought is kept.

        Raises: OSError.
        """
        self._count(segment)
        self._write(segment)
        segment.connection.stop()
        self._release(segment)

    def missing(self) -> list[tuple[int, int]]:
        """Return the ranges that are not in the part file and that no connection is at."""
        size = self.version.size if self.version is not None else None
        if size is None:
            return []
        taken = ByteRanges(self.done.ranges())
        for segment in self.segments.values():
            taken.add(segment.position, segment.end if segment.end is not None else size)
        return taken.missing(0, size)

    # --- the first response ---

    def _open_first(self, now: float) -> None:
        source = self.sources.opening()
        if source is None:
            raise RuntimeError("every source was given up")
        asked = None
        if self._resume is not None:
            ranges, version = self._resume
            start, end = ByteRanges(ranges).missing(0, _end_of(ranges, version))[0]
            last = version.size is None or end == version.size
            asked = ResumePoint(
                offset=start,
                end=None if last else end,
                version=version,
                agreement=self.sources.agreement(source, version, is_first=True),
            )
        self._active_mono = now
        self._open(source, asked, now)

    def _open(self, source: Source, asked: ResumePoint | None, now: float) -> Segment:
        connection = self._connections.take()
        segment = Segment(connection, source, asked, now)
        try:
            connection.start(self._request(segment), self)
        except (pycurl.error, ValueError, TaskFailed) as error:
            self._connections.give_back(connection)
            if isinstance(error, TaskFailed):
                raise
            raise TaskFailed(FailureCode.BAD_URL, f"libcurl does not take this request: {error.args[-1]}") from None
        self.segments[connection] = segment
        source.connections += 1
        return segment

    def _request(self, segment: Segment) -> Request:
        source, asked = segment.source, segment.asked
        lines: tuple[str, ...] = ()
        if source.is_http and asked is not None:
            last = "" if asked.end is None else str(asked.end - 1)
            lines = (f"Range: bytes={asked.offset}-{last}",)
            version = source.version or (asked.version if source is self.sources.main else None)
            validator = version and (version.etag or version.last_modified)
            if validator and source.takes_if_range:
                lines = (*lines, f"If-Range: {validator}")
                segment.wanted_if_range = True
        elif source.is_http and self.job.newer_than is not None:
            lines = (f"If-Modified-Since: {self.job.newer_than}",)
        return Request(
            url=encode_url(source.url),
            headers=encode_headers((*self.job.headers, *lines)),
            resume_from=asked.offset if asked is not None and not source.is_http else 0,
            limit_rate_bps=0,
            settings=self.job.settings,
            options=self.job.options,
        )

    # --- bytes ---

    def _take(self, segment: Segment, data: bytes) -> Answer:
        if not segment.is_accepted and segment.judgement is None:
            if not segment.source.is_http:
                self._late = segment
                return Answer.LATER
            head = segment.connection.head()
            self._apply(segment, self._judge(segment, head), head)
        if not segment.is_accepted:
            segment.drained_bytes += len(data)
            wanted = isinstance(segment.judgement, Refuse) and segment.drained_bytes <= _DRAIN_BYTES
            return Answer.TAKEN if wanted else Answer.STOP
        if self._limiter is not None:
            if not self._limiter.may_take(time.monotonic()):
                self._throttled.append(segment)
                return Answer.LATER
            self._limiter.take(len(data))
        if segment.hold(data, pour=self._limiter is None):
            self._count(segment)
            self._write(segment)
        return self._answer(segment)

    def _answer(self, segment: Segment) -> Answer:
        is_over = segment.judgement is not None or (segment.is_full() and segment.is_cut_short())
        return Answer.STOP if is_over or self._failure is not None else Answer.TAKEN

    def _judge(self, segment: Segment, head: ResponseHead) -> Judgement:
        judgement = judge(head, segment.asked, is_conditional=self.job.newer_than is not None)
        is_same_file_whole = (
            isinstance(judgement, Accept) and not judgement.is_part and judgement.note == NO_RANGES_NOTE
        )
        if isinstance(judgement, Accept) and not judgement.is_part and self._is_current(judgement):
            return Unchanged()
        if is_same_file_whole and segment.wanted_if_range and segment.source.takes_if_range:
            # Some servers answer so though nothing has changed: what a 206 says without it is compared all the same.
            segment.source.takes_if_range = False
            return AskAgain(note="")
        return judgement

    def _is_current(self, accepted: Accept) -> bool:
        """Tell whether a server that pays no heed to If-Modified-Since has nothing newer."""
        if self.job.newer_than is None or accepted.version.last_modified is None:
            return False
        return not is_later(accepted.version.last_modified, self.job.newer_than)

    def _apply(self, segment: Segment, judgement: Judgement, head: ResponseHead | None) -> None:
        if head is not None:
            self.status = head.status
        expected = self.job.options.size_bytes
        if isinstance(judgement, Accept) and expected is not None and judgement.version.size not in (None, expected):
            words = f"{segment.source.host} has a file of {judgement.version.size} bytes, and it should have {expected}"
            segment.judgement = Refuse(verdict=Verdict(code=FailureCode.CHECKSUM, message=words))
        elif isinstance(judgement, Accept) and self.version is None:
            self._accept_first(segment, judgement, head)
        elif isinstance(judgement, Accept) and judgement.is_part:
            self._accept_more(segment, judgement)
        elif isinstance(judgement, Accept):
            is_changed = judgement.note == REMOTE_CHANGED_NOTE
            segment.judgement = AskAgain(note=judgement.note or OTHER_RANGE_NOTE, is_changed=is_changed)
        else:
            segment.judgement = judgement
            self._drain_until_mono = time.monotonic() + _DRAIN_S

    def _accept_first(self, segment: Segment, accepted: Accept, head: ResponseHead | None) -> None:
        if accepted.note is not None:
            self._owner.note(accepted.note)
        self._part = self._owner.open_part(accepted, head, segment.source)
        is_resumed = self._resume is not None and accepted.is_part
        self.done = ByteRanges(self._resume[0] if is_resumed and self._resume is not None else ())
        self.was_assembled = is_resumed
        self.version = accepted.version
        self.sources.main = segment.source
        self._accept_more(segment, accepted)
        now = time.monotonic()
        is_large = (accepted.version.size or 0) >= LEAST_FILE_BYTES
        can_spread = is_large and segment.source.is_http and not self.job.is_plain and not self._started_over
        if can_spread and (accepted.version.has_validator() or self.job.has_checksum()):
            self._spreading = Spreading(self, now)

    def _accept_more(self, segment: Segment, accepted: Accept) -> None:
        segment.source.version = accepted.seen
        segment.source.answered(time.monotonic() - segment.begun_mono)
        segment.accept(accepted)

    def _decide_late(self, segment: Segment) -> None:
        """Decide about an FTP or SFTP file, whose size libcurl tells only outside of its callbacks."""
        remaining = segment.connection.announced_length()
        total = None if remaining is None else segment.start + remaining
        try:
            self._apply(segment, judge_by_size(total, segment.asked), None)
        except Exception as error:  # noqa: BLE001  told to the owner, like all others
            self._fail(_verdict_of(error), segment.source.index)
        if segment.is_accepted:
            segment.connection.go_on()
        else:
            segment.connection.stop()
            self._end_segment(segment, _NO_RESULT)

    def _count(self, segment: Segment) -> None:
        """Take in what a connection has brought since the last time."""
        self.received_bytes += segment.count()

    def _write(self, segment: Segment) -> None:
        if self._part is None or not segment.is_accepted:
            return
        written = segment.write(self._part)
        if written is None:
            return
        self.done.add(written.start, written.end)
        if written.overran and segment.asked is not None and segment.source.is_http:
            segment.judgement = AskAgain(note=OTHER_RANGE_NOTE)  # it does not know where its bytes belong
            self.done.remove(segment.start, segment.position)
        elif written.overran:
            words = f"the server sent more than the {segment.natural_end} bytes that it had announced"
            self._fail(Verdict(code=FailureCode.REMOTE_CHANGED, message=words), segment.source.index)
        span = segment.take_written()
        if span is not None:
            self._owner.write_back(*span)

    def _go_on(self, now: float) -> None:
        throttled, self._throttled = self._throttled, []
        self._active_mono = now
        for segment in throttled[1:] + throttled[:1]:  # another one is first each time
            if segment.connection in self.segments:
                segment.connection.go_on()

    # --- ends of requests ---

    def _end_segment(self, segment: Segment, result: CurlResult) -> None:
        """Take in the end of a request, whichever way it came."""
        if self._has_ended:
            return
        try:
            self._count(segment)
            if self._failure is None and not segment.is_accepted and segment.judgement is None:
                self._judge_without_body(segment, result)
            self._write(segment)
        except Exception as error:  # noqa: BLE001  told to the owner, like all others
            self._fail(_verdict_of(error), segment.source.index)
        rival = segment.rival
        self._release(segment)
        self._guarded(lambda: self._go_on_after(segment, rival, result))

    def _judge_without_body(self, segment: Segment, result: CurlResult) -> None:
        if not segment.source.is_http:
            if result.code in CANNOT_RESUME and segment.asked is not None:
                segment.judgement = AskAgain(note=NO_RANGES_NOTE)
            elif result.code == 0:
                remaining = segment.connection.announced_length()
                total = None if remaining is None else segment.start + remaining
                self._apply(segment, judge_by_size(total, segment.asked), None)
            return
        head = segment.connection.head()
        if result.code == 0 or head.status >= 400 or head.status == 304:
            self._apply(segment, self._judge(segment, head), head)

    def _go_on_after(self, segment: Segment, rival: Segment | None, result: CurlResult) -> None:
        """Decide what follows the end of a request."""
        now = time.monotonic()
        if rival is not None and rival.end is not None and self.done.covers(rival.position, rival.end):
            self.close_segment(rival)
        if self._failure is not None or self._is_complete(segment, result):
            self._end()
            return
        if segment.is_accepted and segment.judgement is None and segment.is_full():
            self._steer(now)
            return
        match segment.judgement:
            case Unchanged():
                self._has_ended = True
                self._close_all()
                self._owner.unchanged(segment.source)
            case AskAgain(note=note) as again:
                if note:
                    self._mend(segment, again, now)
                else:
                    self._open(segment.source, segment.asked, now)
            case Refuse(verdict=verdict):
                self._replace(segment, verdict, now)
            case _:
                self._replace(segment, self._verdict(segment, result), now)

    def _is_complete(self, segment: Segment, result: CurlResult) -> bool:
        if self._part is None or self.version is None:
            return False
        if self.version.size is not None:
            return self.done.covers(0, self.version.size)
        return segment.is_accepted and result.code == 0

    def _verdict(self, segment: Segment, result: CurlResult) -> Verdict:
        if result.code == _OUT_OF_MEMORY and not segment.is_accepted:  # libcurl 7.88, of a head that has no end
            return Verdict(code=FailureCode.PROTOCOL, message=f"{segment.source.host} sends too long a head")
        if result.code:
            return curl_verdict(result, segment.source.url)
        size = segment.natural_end if segment.natural_end is not None else segment.end
        words = f"the server sent {segment.position} of {size} bytes"
        return Verdict(code=FailureCode.TRUNCATED, message=words, http_status=result.status)

    def _steer(self, now: float) -> None:
        """Give free connections work; when nobody works any more though bytes are missing, ask for them."""
        if self._spreading is not None:
            self._spreading.steer(now)
        if self._failure is not None:
            self._end()
            return
        if self.segments or self._pause_until_mono < _NEVER:
            return
        gaps = self.missing()
        if not gaps:
            self._end()
            return
        source = self.sources.opening()
        if source is None or self.open_range(source, *gaps[0], now) is None:
            self._fail(self.sources.verdict() or _no_source(), self._main_index())
            self._end()

    def _mend(self, segment: Segment, again: AskAgain, now: float) -> None:
        """Answer a response that doesn't fit what is here."""
        source = segment.source
        if self.version is None:
            self._start_over(again.note, now)
            return
        source.sends_ranges = False
        if source is not self.sources.main:
            words = "another file" if again.is_changed else "no ranges that fit"
            self._drop(source, f"the mirror {source.host} has {words} and is not used")
        if self.segments:
            # The others' responses are of the version that is here. If they can't bring all of it, what is missing
            # in the end is asked for once more.
            self._give_back(segment, now)
        elif source is self.sources.main:
            self._start_over(again.note, now)
        else:
            self._steer(now)

    def _give_back(self, segment: Segment, now: float) -> None:
        """Leave to the others what a connection could not bring."""
        if self._spreading is not None:
            if not segment.is_accepted:
                self._spreading.lost_one(now)
            self._spreading.absorb(segment.position)
        self._steer(now)

    def _replace(self, segment: Segment, verdict: Verdict, now: float) -> None:
        """A connection failed: others take over, another source does, or the attempt is over."""
        source = segment.source
        is_out = source.failed(now)
        if self.version is None:
            self._next_source(source, with_status(verdict, self.status), now)
            return
        if self.segments:
            if is_out and source is not self.sources.main:
                self._drop(source, f"the mirror {source.host} fails and is not used: {verdict.message}")
            self._give_back(segment, now)
            return
        has_refused_a_part = isinstance(segment.judgement, Refuse) and verdict.retry_after_s is None
        if has_refused_a_part and self._spreading is not None and self._spreading.has_spread and not is_out:
            self._pause_until_mono = source.rests_until_mono()
            return
        source.failure = verdict
        if self.sources.opening() is not None:
            self._owner.note(f"{source.host} failed ({verdict.message}); going on with a mirror")
            self._steer(now)
        elif has_refused_a_part and not self._started_over:
            self._start_over(f"{verdict.message} for a part of the file; starting over with one connection", now)
        else:
            self._fail(verdict, source.index)
            self._end()

    def _next_source(self, source: Source, verdict: Verdict, now: float) -> None:
        source.failure = verdict
        if self.sources.opening() is None and self._resume is not None and not verdict.may_pass():
            source.failure = None  # the refusal may be meant for the range alone
            self._start_over(f"{verdict.message} for a part of the file; starting over", now)
            return
        if self.sources.opening() is None:
            best = self.sources.verdict() or verdict
            index = next(s.index for s in self.sources.all if s.failure is best)
            self._fail(best, index)
            self._end()
            return
        self._owner.note(f"{source.host} failed ({verdict.message}); trying a mirror")
        self._open_first(now)

    def _drop(self, source: Source, words: str) -> None:
        if source.failure is None:
            source.failure = Verdict(code=FailureCode.REMOTE_CHANGED, message=words)
            self._owner.note(words)

    def _start_over(self, note: str, now: float) -> None:
        """Forget everything and ask for the whole file with one connection, once."""
        self._close_all()
        if self._started_over:
            words = "the remote file keeps changing, or the server's answers to a resume make no sense"
            self._fail(Verdict(code=FailureCode.REMOTE_CHANGED, message=words), self._main_index())
            self._end()
            return
        self._started_over = True
        self._owner.note(note)
        self._resume = None
        self.version = None
        self._spreading = None
        for source in self.sources.all:
            source.version = None
            source.sends_ranges = False
        self.sources.all[self._main_index()].failure = None
        self._open_first(now)

    # --- the end ---

    def _fail(self, verdict: Verdict, source: int) -> None:
        if self._failure is None:
            self._failure = (verdict, source)

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001  told to the owner
            self._fail(_verdict_of(error), self._main_index())
            self._end()

    def _end(self) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        failure = self._failure
        try:
            self.write_held()
        except OSError as error:
            failure = failure or (os_verdict(error, "write the part file"), self._main_index())
        self._close_all()
        self._spreading = None
        failure = failure or self._failure
        if failure is None:
            self._owner.transfer_ended(None, 0)
        else:
            self._owner.transfer_ended(with_status(failure[0], self.status), failure[1])

    def _release(self, segment: Segment) -> None:
        """Let go of a segment whose request is over."""
        if self.segments.pop(segment.connection, None) is None:
            return
        segment.source.connections -= 1
        if segment.rival is not None:
            segment.rival.rival = None
        if segment in self._throttled:
            self._throttled.remove(segment)
        self._connections.give_back(segment.connection)

    def _close_all(self) -> None:
        for segment in tuple(self.segments.values()):
            segment.connection.stop()
            self._release(segment)

    def _main_index(self) -> int:
        return self.sources.main.index

    def _stall_mono(self) -> float:
        if self._throttled or self._pause_until_mono < _NEVER:
            return _NEVER
        settings = self.job.settings
        patience = settings.stall_timeout_s
        if not self._seen_bytes:
            patience += settings.connect_timeout_s
        return self._active_mono + patience


def _end_of(ranges: Ranges, version: RemoteVersion) -> int:
    """Return the file's size, or an offset beyond what is there while it is unknown."""
    return version.size if version.size is not None else ranges[-1][1] + 1


def _no_source() -> Verdict:
    return Verdict(code=FailureCode.NETWORK, message="no source of the file is left")


def _verdict_of(error: Exception) -> Verdict:
    match error:
        case TaskFailed():
            return error.verdict
        case OSError():
            return os_verdict(error, "write the part file")
        case _:
            logger.error("a transfer met a defect", exc_info=error, extra={"event": "defect"})
            return Verdict(code=FailureCode.INTERNAL, message=f"a defect of autodl: {type(error).__name__}")
