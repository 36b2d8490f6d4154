"""What connections bring: responses are judged, and the bytes of those that were accepted go into the file.

Runs as: the task's owner, most of it inside of libcurl's callbacks, where no request can be begun or ended.
Talks to: the part file; the owner, who opens it.
What is decided here is left where the transfer finds it when libcurl is done: a segment's `judgement`, and `failure`.
Invariants: no byte reaches the part file before its response's head was accepted; nothing that libcurl calls raises;
the first failure is the one that counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pycurl

from autodl_lib.worker.network.connection import Answer
from autodl_lib.worker.network.response import Accept, AskAgain, Judgement, Refuse
from autodl_lib.worker.network.response_head import ResponseHead
from autodl_lib.worker.network.tap import PIPE_BYTES, Tap
from autodl_lib.worker.network.verdicts import CurlResult, Verdict
from autodl_lib.worker.transfer.defects import verdict_of
from autodl_lib.worker.transfer.filling import Filling
from autodl_lib.worker.transfer.job import Job, TransferOwner
from autodl_lib.worker.transfer.judging import judge_end, judge_head, judge_without_head
from autodl_lib.worker.transfer.segment import Segment
from autodl_lib.worker.transfer.sources import Source, Sources
from autodl_lib.worker.transfer.throttle import Throttle

_DRAIN_BYTES = 65536
"""So much of a refusal's body is read, to keep the connection usable."""
_MOVES_AT_ONCE = 8
_MOVED_UNDER_A_LIMIT_BYTES = 64 * 1024


class Reception:
    """Takes what comes, for one transfer."""

    def __init__(self, job: Job, owner: TransferOwner, sources: Sources, throttle: Throttle) -> None:
        self.filling = Filling(owner.write_back)
        self.status: int | None = None
        """The code of the last response that was accepted, or before there is one, of the last."""
        self.failure: tuple[Verdict, int] | None = None
        """Why the transfer has failed, and by which source."""
        self._job = job
        self._owner = owner
        self._sources = sources
        self._throttle = throttle
        self._has_begun = False
        self._late: Segment | None = None
        """Whose response can be judged only outside of libcurl."""

    # --- inside of libcurl ---

    def take(self, segment: Segment, data: bytes) -> Answer:
        """Take bytes of a body."""
        if not segment.is_accepted:
            self._guarded(segment, lambda: self._take_head(segment))
        if self.failure is not None:
            return Answer.STOP
        if not segment.is_accepted:
            return self._answer_unwanted(segment, len(data))
        if not self._throttle.admits(segment):
            return Answer.LATER
        self._throttle.take(len(data))
        if segment.hold(data, pour=not self._throttle.rate_bps()):
            return self.take_poured(segment)
        return self._answer(segment)

    def take_poured(self, segment: Segment) -> Answer:
        """Write what a connection holds."""
        self._guarded(segment, lambda: self.write(segment))
        return self._answer(segment)

    def _take_head(self, segment: Segment) -> None:
        if segment.judgement is not None:
            return
        if segment.speaks_http():
            judgement = judge_head(self._job, segment, is_first=self._is_first())
            self._apply(segment, judgement, segment.connection.head())
        else:
            self._late = segment

    def _answer_unwanted(self, segment: Segment, size_bytes: int) -> Answer:
        if self._late is segment:
            return Answer.LATER
        segment.drained_bytes += size_bytes
        is_drained = isinstance(segment.judgement, Refuse) and segment.drained_bytes <= _DRAIN_BYTES
        return Answer.TAKEN if is_drained else Answer.STOP

    def _answer(self, segment: Segment) -> Answer:
        is_over = segment.judgement is not None or (segment.is_full() and segment.is_cut_short())
        return Answer.STOP if is_over or self.failure is not None else Answer.TAKEN

    # --- outside of libcurl ---

    def notice(self, segment: Segment) -> bool:
        """Count what has come; False when that is nothing."""
        seen = segment.connection.bytes_seen()
        if seen == segment.seen_bytes:
            return False
        segment.seen_bytes = seen
        self.filling.count(segment)
        return True

    def has_just_begun(self) -> bool:
        """Tell, once, that a first response was accepted."""
        has_begun, self._has_begun = self._has_begun, False
        return has_begun

    def is_late(self, segment: Segment) -> bool:
        """Tell whether a response waits for `judge_late`."""
        return self._late is segment

    def judge_late(self, segment: Segment) -> None:
        """Judge an FTP or SFTP response."""
        self._late = None
        self._guarded(segment, lambda: self._judge_without_head(segment))

    def tap(self, segment: Segment, tapper: Callable[[Tap], None]) -> CurlResult | None:
        """Have the rest of a body come past libcurl, where that can be; return how the response ended, if it has."""
        if self._throttle.rate_bps():
            return None
        try:
            self.write(segment)
            segment.is_untappable = not segment.connection.tap(tapper)
        except ConnectionError as error:
            return self._ended(pycurl.E_PARTIAL_FILE, error.errno or 0)
        except OSError as error:
            self.fail_by(error, segment.source)
        return None

    def move(self, segment: Segment, tap: Tap) -> CurlResult | None:
        """Move what has come of a tapped body into the part file; return how the response ended, once it has."""
        most_bytes = _MOVED_UNDER_A_LIMIT_BYTES if self._throttle.rate_bps() else PIPE_BYTES
        try:
            for _ in range(_MOVES_AT_ONCE):
                if segment.is_full():
                    break
                if not self._throttle.admits(segment):
                    segment.connection.put_off()
                    return None
                size = self.filling.move(segment, tap, most_bytes)
                if size == 0:
                    return self._ended(pycurl.E_PARTIAL_FILE)
                if size is None:
                    return None
                self._throttle.take(size)
        except (ConnectionError, TimeoutError) as error:
            return self._ended(pycurl.E_RECV_ERROR, error.errno or 0)
        except Exception as error:  # noqa: BLE001  told to the owner
            self.fail_by(error, segment.source)
        return self._ended(pycurl.E_OK) if segment.is_full() else None

    def _ended(self, code: int, os_errno: int = 0) -> CurlResult:
        """Return how a tapped response ended, in libcurl's terms."""
        return CurlResult(code=code, message="", os_errno=os_errno, status=self.status)

    def end(self, segment: Segment, result: CurlResult) -> None:
        """Take in the end of a response, which may have had no body."""

        def take_in() -> None:
            self.filling.count(segment)
            if self.failure is None and not segment.is_accepted and segment.judgement is None:
                judgement = judge_end(self._job, segment, result, is_first=self._is_first())
                if judgement is not None:
                    self._apply(segment, judgement, segment.connection.head() if segment.speaks_http() else None)
            self.write(segment)

        self._guarded(segment, take_in)

    def write(self, segment: Segment) -> None:
        """Write what is only in memory.

        Raises: OSError.
        """
        self.filling.count(segment)
        match self.filling.write(segment):
            case AskAgain() as again:
                segment.judgement = again
            case Refuse(verdict=verdict):
                self.fail(verdict, segment.source)

    def fail(self, verdict: Verdict, source: Source) -> None:
        """Remember the first failure."""
        if self.failure is None:
            self.failure = (verdict, source.index)

    def fail_by(self, error: Exception, source: Source) -> None:
        """Remember an exception, if it is the first failure."""
        self.fail(verdict_of(error, "write the part file"), source)

    # --- responses ---

    def _is_first(self) -> bool:
        return self.filling.version is None

    def _judge_without_head(self, segment: Segment) -> None:
        self._apply(segment, judge_without_head(self._job, segment, is_first=self._is_first()), None)

    def _apply(self, segment: Segment, judgement: Judgement, head: ResponseHead | None) -> None:
        if head is not None and (self._is_first() or isinstance(judgement, Accept)):
            self.status = head.status
        if not isinstance(judgement, Accept):
            segment.judgement = judgement
            return
        if self._is_first():
            self._begin(segment, judgement, head)
        else:
            self.filling.was_assembled = True
        segment.source.version = judgement.seen
        segment.source.answered(time.monotonic() - segment.begun_mono)
        segment.accept(judgement)

    def _begin(self, segment: Segment, accepted: Accept, head: ResponseHead | None) -> None:
        if accepted.note is not None:
            self._owner.note(accepted.note)
        part = self._owner.open_part(accepted, head, segment.source)
        self.filling.begin(part, accepted)
        self._sources.main = segment.source
        self._has_begun = True

    def _guarded(self, segment: Segment, action: Callable[[], None]) -> None:
        """Do something; an exception, which libcurl's caller would only print, becomes the failure."""
        try:
            action()
        except Exception as error:  # noqa: BLE001  told to the owner
            self.fail_by(error, segment.source)
