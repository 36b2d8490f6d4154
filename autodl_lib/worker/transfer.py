"""One file's way from the network into its part file: ranges, the connections that fill them, and the end.

Runs as: the task's owner.  Talks to: connections; the part file that its owner opens for it.
A transfer is a list of segments, each a range of the file with a connection of its own; today there is one.
Invariants: no byte reaches the part file before the response's head was accepted; at most BASIN_PIECES of
libcurl's pieces are held in memory; the owner hears of the end exactly once.
How it fails: a Verdict to the owner; bytes that were accepted until then are in the part file.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Protocol

import pycurl

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.worker_messages import TransferSettings
from autodl_lib.worker.connection import Answer, Connection, Connections
from autodl_lib.worker.control_file import Ranges
from autodl_lib.worker.part_file import PartFile
from autodl_lib.worker.request_options import READS_AT_ONCE, Request, buffer_bytes, encode_headers, encode_url
from autodl_lib.worker.response import (
    NO_RANGES_NOTE,
    Accept,
    AskAgain,
    Judgement,
    Refuse,
    ResponseHead,
    ResumePoint,
    judge,
    judge_by_size,
)
from autodl_lib.worker.speed import Speed
from autodl_lib.worker.verdicts import (
    CANNOT_RESUME,
    CurlResult,
    TaskFailed,
    Verdict,
    curl_verdict,
    host_and_port,
    os_verdict,
    with_status,
)

WRITE_BACK_BYTES = 32 * 1024 * 1024
"""After so much, the disk is set to work: syncing a large file at its end then finds little left to do."""

_DRAIN_BYTES = 65536
_DRAIN_S = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What to fetch and how."""

    url: str
    headers: tuple[str, ...]
    limit_rate_bps: int
    settings: TransferSettings


class TransferOwner(Protocol):
    """Who a transfer works for."""

    def open_part(self, accepted: Accept, head: ResponseHead | None) -> PartFile:
        """Return the part file for an accepted response. Raises: TaskFailed, OSError."""

    def note(self, text: str) -> None:
        """Tell the task's history something."""

    def write_back(self, offset: int, length: int) -> None:
        """Have bytes that were written go on to the disk; nobody waits for it."""

    def transfer_ended(self, failure: Verdict | None) -> None:
        """Hear that the file is complete, or why not."""


class Segment:
    """A range of the file as one connection fills it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.start = 0
        self.position = 0
        self._sent_to_disk = 0
        self._buffers: list[bytes] = []
        self._buffered = 0

    def place(self, offset: int) -> None:
        """Begin at `offset` of the file."""
        self.start = self.position = self._sent_to_disk = offset

    def hold(self, data: bytes) -> None:
        """Keep the first bytes in memory until the next `write`; the connection appends what follows them."""
        self._buffers.append(data)
        self.connection.pour_into(self._buffers)

    def count(self) -> int:
        """Take in what the connection has appended; return how many bytes that were."""
        before, self._buffered = self._buffered, sum(map(len, self._buffers))
        return self._buffered - before

    def held_bytes(self) -> int:
        """Return how much is kept in memory."""
        return self._buffered

    def write(self, part: PartFile) -> None:
        """Write what is held.

        Raises: OSError.
        """
        if self._buffered:
            buffers, size = self._buffers.copy(), self._buffered
            self._buffers.clear()
            self._buffered = 0
            part.write(buffers, self.position)
            self.position += size

    def take_written(self) -> tuple[int, int] | None:
        """Return the offset and length of what was written since the last time, once that is worth it."""
        offset, length = self._sent_to_disk, self.position - self._sent_to_disk
        if length < WRITE_BACK_BYTES:
            return None
        self._sent_to_disk = self.position
        return offset, length


class Transfer:
    """One attempt to fetch one file."""

    def __init__(self, source: Source, owner: TransferOwner, connections: Connections) -> None:
        self.received_bytes = 0
        self.status: int | None = None
        self._source = source
        self._owner = owner
        self._connections = connections
        self._is_http = source.url[:4].lower() == "http"
        self._segments: list[Segment] = []
        self._at_work = False
        self._asked: ResumePoint | None = None
        self._accepted: Accept | None = None
        self._again: str | None = None
        self._started_over = False
        self._is_paused = False
        self._part: PartFile | None = None
        self._failure: Verdict | None = None
        self._drain_until_mono = 0.0
        self._drained = 0
        self._active_mono = 0.0
        self._seen = 0
        self._speed = Speed()

    # --- what the owner asks for ---

    def start(self, asked: ResumePoint | None) -> None:
        """Send the request, for the whole file or from a resume point on.

        Raises: TaskFailed.
        """
        self._asked = asked
        self._again = None
        self._seen = 0
        self._active_mono = time.monotonic()
        segment = Segment(self._connections.take())
        self._segments = [segment]
        self._at_work = True
        self._speed.sample(self.received_bytes, self._active_mono)
        try:
            segment.connection.start(self._request(asked), self)
        except (pycurl.error, ValueError) as error:
            self._release_connections()
            raise TaskFailed(FailureCode.BAD_URL, f"libcurl does not take this request: {error.args[-1]}") from None

    def stop(self) -> None:
        """Stop without telling the owner; what was accepted is in the part file afterwards.

        Raises: OSError.
        """
        for segment in self._segments:
            segment.connection.stop()
        self._release_connections()
        self.write_held()

    def write_held(self) -> None:
        """Write what is only in memory.

        Raises: OSError.
        """
        self._collect()
        if self._part is not None:
            for segment in self._segments:
                segment.write(self._part)
                written = segment.take_written()
                if written is not None:
                    self._owner.write_back(*written)

    def ranges(self) -> Ranges | None:
        """Return which ranges are in the part file, None when no response was accepted yet."""
        if self._accepted is None:
            return None
        end = self._segments[0].position
        return ((0, end),) if end else ()

    def bytes_done(self) -> int:
        """Return the file's bytes that are here, from earlier attempts too."""
        if self._accepted is None:
            return self._asked.offset if self._asked is not None else 0
        return sum(segment.position + segment.held_bytes() for segment in self._segments)

    def connection_count(self) -> int:
        """Return how many connections are at work."""
        return len(self._segments)

    def speed_bps(self, now: float) -> int:
        """Return the smoothed speed."""
        return self._speed.sample(self.received_bytes, now)

    def stall_mono(self) -> float:
        """Return when `check` is to be called at the latest."""
        if self._failure is not None:
            return self._drain_until_mono
        settings, limit = self._source.settings, self._source.limit_rate_bps
        patience = settings.stall_timeout_s if self._seen else settings.stall_timeout_s + settings.connect_timeout_s
        pause_s = READS_AT_ONCE * buffer_bytes(limit) / limit if limit else 0.0
        return self._active_mono + patience + pause_s

    def check(self, now: float) -> None:
        """End the transfer if no byte has come for too long."""
        if now < self.stall_mono():
            return
        if self._failure is None:
            host, _ = host_and_port(self._source.url)
            words = f"{host} sent nothing for {self._source.settings.stall_timeout_s:g} s"
            self._failure = Verdict(code=FailureCode.STALLED, message=words)
        for segment in self._segments:
            segment.connection.stop()
        self._end()

    # --- what a connection tells ---

    def body_arrived(self, connection: Connection, data: bytes) -> Answer:
        """See connection.Listener."""
        try:
            return self._take(connection, data)
        except Exception as error:  # noqa: BLE001  libcurl's caller would only print it
            self._fail(_verdict_of(error))
            return Answer.STOP

    def basin_filled(self, connection: Connection) -> Answer:
        """See connection.Listener."""
        try:
            self.write_held()
        except OSError as error:
            self._fail(_verdict_of(error))
            return Answer.STOP
        return Answer.TAKEN

    def connection_stepped(self, connection: Connection) -> None:
        """See connection.Listener."""
        seen = connection.bytes_seen()
        if seen != self._seen:
            self._seen = seen
            self._active_mono = time.monotonic()
            self._collect()
        if self._is_paused:
            self._is_paused = False
            self._decide_late(connection)

    def connection_ended(self, connection: Connection, result: CurlResult) -> None:
        """See connection.Listener."""
        self.status = result.status
        self._collect()
        if self._failure is None and self._again is None:
            self._judge_end(connection, result)
        if self._failure is None and self._again is not None:
            self._start_over(self._again)
        else:
            self._end()

    # --- inside ---

    def _request(self, asked: ResumePoint | None) -> Request:
        headers = self._source.headers
        if asked is not None and self._is_http:
            validator = asked.version.etag or asked.version.last_modified
            headers = (*headers, f"Range: bytes={asked.offset}-", f"If-Range: {validator}")
        return Request(
            url=encode_url(self._source.url),
            headers=encode_headers(headers),
            resume_from=asked.offset if asked is not None and not self._is_http else 0,
            limit_rate_bps=self._source.limit_rate_bps,
            settings=self._source.settings,
        )

    def _take(self, connection: Connection, data: bytes) -> Answer:
        if self._accepted is None and self._failure is None:
            if not self._is_http:
                self._is_paused = True
                return Answer.LATER
            head = connection.head()
            self._apply(judge(head, self._asked), head)
        if self._again is not None:
            return Answer.STOP
        if self._failure is not None:
            self._drained += len(data)
            return Answer.TAKEN if self._drained <= _DRAIN_BYTES else Answer.STOP
        [segment] = self._segments
        segment.hold(data)
        return Answer.TAKEN

    def _collect(self) -> None:
        """Take in what connections have brought since the last time."""
        for segment in self._segments:
            self.received_bytes += segment.count()

    def _apply(self, judgement: Judgement, head: ResponseHead | None) -> None:
        self.status = head.status if head is not None else None
        match judgement:
            case Accept():
                if judgement.note is not None:
                    self._owner.note(judgement.note)
                self._part = self._owner.open_part(judgement, head)
                self._segments[0].place(judgement.offset)
                self._accepted = judgement
            case AskAgain():
                self._again = judgement.note
            case Refuse():
                self._fail(judgement.verdict)

    def _decide_late(self, connection: Connection) -> None:
        """Decide about an FTP or SFTP file, whose size libcurl tells only outside of its callbacks."""
        remaining = connection.announced_length()
        offset = self._asked.offset if self._asked is not None else 0
        try:
            self._apply(judge_by_size(None if remaining is None else offset + remaining, self._asked), None)
        except Exception as error:  # noqa: BLE001  told to the owner, like all others
            self._fail(_verdict_of(error))
        if self._accepted is not None:
            connection.go_on()
        else:
            connection.stop()
            self.connection_ended(connection, CurlResult(code=0, message="", os_errno=0, status=None))

    def _judge_end(self, connection: Connection, result: CurlResult) -> None:
        try:
            if result.code in CANNOT_RESUME and self._asked is not None and self._accepted is None:
                self._again = NO_RANGES_NOTE
                return
            if self._accepted is None:
                self._judge_without_body(connection, result)
            self.write_held()
            if self._failure is None and self._again is None:
                self._failure = self._check_complete(result)
        except Exception as error:  # noqa: BLE001  told to the owner, like all others
            self._fail(_verdict_of(error))

    def _judge_without_body(self, connection: Connection, result: CurlResult) -> None:
        if not self._is_http:
            if result.code == 0:
                self._apply(judge_by_size(connection.announced_length(), self._asked), None)
            return
        head = connection.head()
        if result.code == 0 or head.status >= 400:
            self._apply(judge(head, self._asked), head)

    def _check_complete(self, result: CurlResult) -> Verdict | None:
        if result.code:
            return curl_verdict(result, self._source.url)
        size = self._accepted.version.size if self._accepted is not None else None
        position = self._segments[0].position
        if size is None or position == size:
            return None
        if position < size:
            words = f"the server sent {position} of {size} bytes"
            return Verdict(code=FailureCode.TRUNCATED, message=words, http_status=result.status)
        words = f"the server sent {position} bytes, more than the {size} that it had announced"
        return Verdict(code=FailureCode.REMOTE_CHANGED, message=words, http_status=result.status)

    def _start_over(self, note: str) -> None:
        self._release_connections()
        try:
            if self._started_over:
                raise TaskFailed(FailureCode.PROTOCOL, "the server's answers to a resume make no sense")
            self._started_over = True
            self._owner.note(note)
            self.start(None)
        except TaskFailed as failure:
            self._fail(failure.verdict)
            self._end()

    def _fail(self, verdict: Verdict) -> None:
        if self._failure is None:
            self._failure = verdict
            self._drain_until_mono = time.monotonic() + _DRAIN_S

    def _end(self) -> None:
        self._release_connections()
        failure = self._failure
        try:
            self.write_held()
        except OSError as error:
            failure = failure or os_verdict(error, "write the part file")
        if failure is not None:
            failure = with_status(failure, self.status)
        self._owner.transfer_ended(failure)

    def _release_connections(self) -> None:
        if self._at_work:
            self._at_work = False
            for segment in self._segments:
                self._connections.give_back(segment.connection)


def _verdict_of(error: Exception) -> Verdict:
    match error:
        case TaskFailed():
            return error.verdict
        case OSError():
            return os_verdict(error, "write the part file")
        case _:
            logger.error("a transfer met a defect", exc_info=error, extra={"event": "defect"})
            return Verdict(code=FailureCode.INTERNAL, message=f"a defect of autodl: {type(error).__name__}")
