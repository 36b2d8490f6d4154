"""One file's way from the network into its part file: the first request, the connections that help it, and the end.

Runs as: the task's owner.  Talks to: connections, and whom they tell what happens; spreading; the owner.
It begins with one request (`start`, in_flight; mostly sent by small_file). Reception judges its response, as well as
those of all that follow, and fills the part file, as fast as throttle admits. Once the file's version and size are
known, `Spreading` may add connections, each of whose responses must prove to be of that version. When a request has
ended, the file is complete, or steering goes on, or recovery decides what follows.
Under a rate limit the file is complete only when its last bytes have had their time: else small ones were free.
Invariants: the owner hears of the end exactly once.
How it fails: a Verdict to the owner; bytes that were accepted until then are in the part file. Nothing that the
owner calls raises but `start`, `stop` and `write_held`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import assert_never

import pycurl

from autodl_lib.contract.failures import FailureCode
from autodl_lib.worker.files.control_file import Ranges
from autodl_lib.worker.network.connection import Answer, Connection, Connections
from autodl_lib.worker.network.response import AskAgain, RemoteVersion, ResumePoint, Unchanged
from autodl_lib.worker.network.tap import Tap
from autodl_lib.worker.network.verdicts import CurlResult, TaskFailed, Verdict, with_status
from autodl_lib.worker.transfer.in_flight import NOBODY, InFlight
from autodl_lib.worker.transfer.job import Job, TransferOwner
from autodl_lib.worker.transfer.judging import unended
from autodl_lib.worker.transfer.patience import Patience
from autodl_lib.worker.transfer.reception import Reception
from autodl_lib.worker.transfer.recovery import BeginAgain, GiveUp, GoOn, Move, Recovery, Rest, Situation
from autodl_lib.worker.transfer.segment import Segment
from autodl_lib.worker.transfer.sources import Source, Sources
from autodl_lib.worker.transfer.speed import Speed
from autodl_lib.worker.transfer.spreading import LEAST_FILE_BYTES, Spreading
from autodl_lib.worker.transfer.throttle import Throttle

_NO_RESULT = CurlResult(code=0, message="", os_errno=0, status=None)


class Transfer:
    """One attempt to fetch one file."""

    def __init__(self, job: Job, owner: TransferOwner, connections: Connections) -> None:
        self.job = job
        self.sources = Sources(job.urls, job.granted, has_checksum=job.has_checksum(), preferred=job.preferred)
        self._owner = owner
        self._connections = connections
        self._throttle = Throttle(job.limit_rate_bps, time.monotonic())
        self._in_flight = InFlight(job, self.sources, connections, self._throttle)
        self._reception = Reception(job, owner, self.sources, self._throttle)
        self._filling = self._reception.filling
        self._patience = Patience(job.settings)
        self._recovery = Recovery(job, self.sources)
        self._speed = Speed()
        self._spreading: Spreading | None = None
        self._has_ended = False
        self._is_paying = False
        """Whether every byte is there, and only the rate limit is waited for."""

    # --- what the owner asks for ---

    def start(self, ranges: Ranges = (), version: RemoteVersion | None = None) -> None:
        """Send the first request: for the whole file, or for what `ranges` of `version` lack.

        Raises: TaskFailed.
        """
        if version is not None:
            self._filling.resume(ranges, version)
        now = time.monotonic()
        self._speed.sample(self.received_bytes, now)
        self._open_first(now)

    def take_over(self, connection: Connection, pieces: list[bytes], begun_mono: float) -> None:
        """Go on with a request for the whole file that somebody else has sent, and with what it has brought."""
        self._patience.begin(begun_mono)
        self._speed.sample(0, begun_mono)
        self._in_flight.take_over(connection, begun_mono)
        connection.tell(self)
        for piece in pieces:
            self.body_arrived(connection, piece)

    def go_on_with(self, connection: Connection, result: CurlResult | None) -> None:
        """Take in how a request that was taken over had ended, None: let the body come that was put off."""
        segment = self.segments.get(connection)
        if result is not None:
            self.connection_ended(connection, result)
        elif segment is not None:
            self._let_go_on(segment)
            self.connection_stepped(connection)  # libcurl may have no step to take by itself

    def stop(self) -> None:
        """Stop without telling the owner; what was accepted is in the part file afterwards.

        Raises: OSError.
        """
        self._has_ended = True
        self._spreading = None
        try:
            self.write_held()
        finally:
            self._in_flight.stop_all()

    def set_rate(self, limit_rate_bps: int) -> None:
        """Take at most so many bytes a second from now on, 0 is no limit."""
        now = time.monotonic()
        self._throttle.set_rate(limit_rate_bps, now)
        if self._is_paying:
            self._guarded(lambda: self._check(now))
            return
        if limit_rate_bps == 0:
            self._guarded(lambda: self._take_turns(now))
            return
        for connection in self.segments:
            connection.pour_into(None)

    def grant(self, connections: tuple[int, ...]) -> None:
        """Use at most so many connections to each source; those beyond it are closed now."""
        self.sources.grant(connections)
        spreading = self._spreading
        if spreading is not None:
            self._guarded(lambda: spreading.obey_grants(time.monotonic()))

    def check(self, now: float) -> None:
        """Do what is due by time: let throttled connections go on, steer the others, end what has stalled."""
        self._guarded(lambda: self._check(now))

    def wake_mono(self) -> float:
        """Return when `check` is to be called at the latest."""
        if self._is_paying:
            return self._throttle.paid_mono()
        wake = min(self._patience.wake_mono(is_held_back=self._throttle.is_holding_back()), self._throttle.wake_mono())
        return wake if self._spreading is None else min(wake, self._spreading.wake_mono())

    def busy_s(self, now: float) -> float:
        """Return a clock that stands still while this process waits for something to do."""
        return now - self._connections.waited_s()

    def write_held(self) -> None:
        """Write what is only in memory.

        Raises: OSError.
        """
        for segment in self._in_flight.all():
            self._reception.write(segment)

    # --- what it tells of itself ---

    @property
    def status(self) -> int | None:
        """The last response code."""
        return self._reception.status

    @property
    def version(self) -> RemoteVersion | None:
        """The file's version, once a response was accepted."""
        return self._filling.version

    @property
    def received_bytes(self) -> int:
        """What connections have brought since the begin, wanted or not."""
        return self._filling.received_bytes

    @property
    def segments(self) -> dict[Connection, Segment]:
        """The connections at work, each with its piece."""
        return self._in_flight.segments

    def ranges(self) -> Ranges | None:
        """Return which ranges are in the part file, None when no response was accepted yet."""
        return self._filling.ranges()

    def bytes_done(self) -> int:
        """Return the file's bytes that are here, from earlier attempts too."""
        return self._filling.bytes_done(self.segments.values())

    def sole_source(self) -> int | None:
        """Return the source that brought all bytes, in one response; None where there is no such."""
        is_of_one = self.version is not None and not self._filling.was_assembled
        return self.sources.main.index if is_of_one else None

    def connection_count(self) -> int:
        """Return how many connections are at work."""
        return len(self.segments)

    def speed_bps(self, now: float) -> int:
        """Return the smoothed speed."""
        return self._speed.sample(self.received_bytes, now)

    def limit_bps(self) -> int:
        """Return the rate limit, 0 for none."""
        return self._throttle.rate_bps()

    # --- what a connection tells (connection.Listener) ---

    def body_arrived(self, connection: Connection, data: bytes) -> Answer:
        """Take bytes of a body, inside of libcurl."""
        segment = self.segments.get(connection)
        if segment is None or self._has_ended:
            return Answer.STOP
        answer = self._reception.take(segment, data)
        if self._reception.has_just_begun():
            self._let_spread(segment)
        return answer

    def basin_filled(self, connection: Connection) -> Answer:
        """Write what a connection has poured, inside of libcurl."""
        segment = self.segments.get(connection)
        return Answer.STOP if segment is None or self._has_ended else self._reception.take_poured(segment)

    def connection_stepped(self, connection: Connection) -> None:
        """Hear that something may have happened, outside of libcurl."""
        segment = self.segments.get(connection)
        if segment is None:
            return
        if self._reception.notice(segment):
            self._patience.heard(time.monotonic())
        if self._reception.is_late(segment):
            self._decide_late(segment)
        elif segment.is_full() and segment.is_cut_short():
            self._cut(segment)
        elif segment.judgement is not None:
            self._patience.drain(time.monotonic())
        elif segment.is_worth_a_tap(time.monotonic()):
            self._guarded(lambda: self._tap(segment))

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
            return self._in_flight.open(source, asked, self, now)
        except TaskFailed as failure:
            source.failure = failure.verdict
            return None

    def close_segment(self, segment: Segment) -> None:
        """Stop a connection; what it has brought is kept.

        Raises: OSError.
        """
        self._reception.write(segment)
        self._in_flight.stop(segment)

    def missing(self) -> list[tuple[int, int]]:
        """Return the ranges that are not in the part file and that no connection is at."""
        return self._filling.missing(self.segments.values())

    # --- on the way ---

    def _open_first(self, now: float) -> None:
        self._patience.begin(now)
        self._in_flight.open_first(self._filling.first_gap(), self._filling.proof_start, self, now)

    def _let_spread(self, segment: Segment) -> None:
        """Let other connections help from now on, where they can be tied to the first response."""
        version = self._filling.version
        if self.job.is_plain or self._recovery.has_started_over or version is None or not segment.speaks_http():
            return
        if (version.size or 0) >= LEAST_FILE_BYTES and (version.has_validator() or self.job.has_checksum()):
            self._spreading = Spreading(self, time.monotonic())

    def _decide_late(self, segment: Segment) -> None:
        self._reception.judge_late(segment)
        if segment.is_accepted:
            self._let_go_on(segment)
        else:
            self._cut(segment)

    def _tap(self, segment: Segment) -> None:
        """Have the rest of a body come past libcurl, where that can be."""
        result = self._reception.tap(segment, lambda tap: self._guarded(lambda: self._move(segment, tap)))
        if result is not None:
            self._cut(segment, result)

    def _move(self, segment: Segment, tap: Tap) -> None:
        """Move what a tapped connection has brought."""
        before = segment.position
        result = self._reception.move(segment, tap)
        if segment.position > before:
            self._patience.heard(time.monotonic())
        if result is not None:
            self._cut(segment, result)

    def _take_turns(self, now: float) -> None:
        """Let those go on that waited under the rate limit."""
        self._patience.begin(now)
        for segment in self._throttle.next_turn():
            if self._in_flight.has(segment):
                self._let_go_on(segment)

    def _let_go_on(self, segment: Segment) -> None:
        """Let a body come that was put off: libcurl may bring it at once, and fails where the answer is STOP."""
        try:
            segment.connection.go_on()
        except pycurl.error as error:
            code, message = (*error.args, "")[:2]
            self._cut(segment, CurlResult(code=int(code), message=str(message), os_errno=0, status=None))

    def _check(self, now: float) -> None:
        if self._is_paying:
            self._end()
        elif self._patience.is_drained(now):
            for segment in self._in_flight.all():
                if segment.judgement is not None and self._in_flight.has(segment):
                    self._cut(segment)
        elif self._patience.is_rested(now):
            self._steer(now)
        elif self._throttle.is_turn(now):
            self._take_turns(now)
        elif self._patience.has_stalled(now, is_held_back=self._throttle.is_holding_back()):
            host = next((segment.source.host for segment in self._in_flight.all()), "the server")
            verdict = Verdict(code=FailureCode.STALLED, message=self._patience.stall_words(host))
            self._reception.fail(verdict, self.sources.main)
        elif self._spreading is not None:
            self._steer(now)

    def _steer(self, now: float) -> None:
        """Give free connections work; when nobody works any more though bytes are missing, ask for them."""
        if self._spreading is not None:
            self._spreading.steer(now)
        if self._reception.failure is not None or self.segments or self._patience.rests():
            return
        if self._filling.is_complete():
            self._end()
            return
        source, gaps = self.sources.opening(), self.missing()
        if source is None or not gaps or self.open_range(source, *gaps[0], now) is None:
            self._reception.fail(self.sources.verdict() or NOBODY, self.sources.main)

    # --- ends of requests ---

    def _cut(self, segment: Segment, result: CurlResult = _NO_RESULT) -> None:
        """End a request of which nothing more is wanted."""
        segment.connection.stop()
        self._end_segment(segment, result)

    def _end_segment(self, segment: Segment, result: CurlResult) -> None:
        """Take in the end of a request, whichever way it came."""
        if self._has_ended or not self._in_flight.has(segment):
            return
        self._reception.end(segment, result)
        rival = segment.rival
        self._in_flight.release(segment)
        self._guarded(lambda: self._go_on_after(segment, rival, result))

    def _go_on_after(self, segment: Segment, rival: Segment | None, result: CurlResult) -> None:
        """Do what follows the end of a request."""
        now = time.monotonic()
        if rival is not None and rival.end is not None and self._filling.covers(rival.position, rival.end):
            self.close_segment(rival)
        if self._reception.failure is not None or self._is_complete(segment, result):
            self._end()
            return
        if segment.is_accepted and segment.judgement is None and segment.is_full():
            if self._filling.has_size():
                self._steer(now)
            else:
                self._reception.fail(unended(segment), segment.source)
            return
        match segment.judgement:
            case Unchanged():
                self._has_ended = True
                self._in_flight.stop_all()
                self._owner.unchanged(segment.source)
            case AskAgain(note=""):
                self._in_flight.open_again(segment, self, now)
            case _:
                self._follow(self._recovery.after_end(segment, result, self._situation(now)), segment, now)

    def _is_complete(self, segment: Segment, result: CurlResult) -> bool:
        if not self._filling.has_size():
            # A part that is told to end somewhere need not be the last one.
            return segment.is_accepted and segment.natural_end is None and result.code == 0
        return self._filling.is_complete()

    def _situation(self, now: float) -> Situation:
        return Situation(
            now=now,
            status=self.status,
            is_begun=self.version is not None,
            has_size=self._filling.has_size(),
            is_resuming=self._filling.is_resuming(),
            others_work=bool(self.segments),
            has_spread=self._spreading is not None and self._spreading.has_spread,
        )

    def _follow(self, move: Move, segment: Segment, now: float) -> None:
        """Do what recovery has decided."""
        if isinstance(move, GoOn | BeginAgain) and move.note is not None:
            self._owner.note(move.note)
        match move:
            case GoOn():
                if move.is_lost and self._spreading is not None:
                    self._leave_to_others(self._spreading, segment, now)
                self._steer(now)
            case BeginAgain():
                if move.is_anew:
                    self._in_flight.stop_all()
                    self._spreading = None
                    self._filling.forget()
                self._open_first(now)
            case Rest():
                self._patience.rest_until(move.until_mono)
            case GiveUp():
                self._reception.fail(move.verdict, move.source)
            case _:
                assert_never(move)

    @staticmethod
    def _leave_to_others(spreading: Spreading, segment: Segment, now: float) -> None:
        """Let the others take over what a connection could not bring."""
        if not segment.is_accepted:
            spreading.lost_one(now)
        spreading.absorb(segment.position)

    # --- the end ---

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do something outside of libcurl, and end the transfer if it has failed, then or before."""
        if self._has_ended:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001  told to the owner
            self._reception.fail_by(error, self.sources.main)
        if self._reception.failure is not None:
            self._end()

    def _end(self) -> None:
        """Tell the owner, once."""
        if self._has_ended:
            return
        if self._reception.failure is None:  # every byte is there: those that are still held are the same ones
            for segment in self._in_flight.all():
                self._filling.count(segment)
        else:
            with contextlib.suppress(OSError):  # the failure is known already
                self.write_held()
        self._in_flight.stop_all()
        self._spreading = None
        self._is_paying = self._reception.failure is None and self._throttle.paid_mono() > 0
        if self._is_paying:
            return
        self._has_ended = True
        if self._reception.failure is None:
            self._owner.transfer_ended(None, 0)
        else:
            verdict, source = self._reception.failure
            self._owner.transfer_ended(with_status(verdict, self.status), source)
