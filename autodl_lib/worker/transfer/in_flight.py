"""The requests of a transfer that are under way: which connection works at which segment, from opening to release.

Runs as: the task's owner.  Talks to: connections.
Invariants: a connection is here from the moment that libcurl took its request until it is given back, both once;
a segment that is over is not mistaken for the one that its connection works at now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from autodl_lib.contract.failures import FailureCode
from autodl_lib.worker.network.connection import Connection, Connections, Listener
from autodl_lib.worker.network.response import RemoteVersion, ResumePoint
from autodl_lib.worker.network.verdicts import TaskFailed, Verdict
from autodl_lib.worker.transfer.job import Job, request_for, validator_for
from autodl_lib.worker.transfer.segment import Segment
from autodl_lib.worker.transfer.sources import Source, Sources
from autodl_lib.worker.transfer.throttle import Throttle

NOBODY = Verdict(code=FailureCode.NETWORK, message="no source of the file is left")


class InFlight:
    """Opens, finds and closes."""

    def __init__(self, job: Job, sources: Sources, connections: Connections, throttle: Throttle) -> None:
        self.segments: dict[Connection, Segment] = {}
        self._job = job
        self._sources = sources
        self._connections = connections
        self._throttle = throttle

    def all(self) -> tuple[Segment, ...]:
        """Return the segments of this moment; they may end while they are gone through (see `has`)."""
        return tuple(self.segments.values())

    def has(self, segment: Segment) -> bool:
        """Tell whether a segment's request is still under way."""
        return self.segments.get(segment.connection) is segment

    def open_first(
        self,
        gap: tuple[int, int | None, RemoteVersion] | None,
        proof_start: Callable[[int], int],
        listener: Listener,
        now: float,
    ) -> None:
        """Send the request that a transfer begins with; `gap` None: for the whole file.

        Of FTP, nothing shows that a server goes on where it is to but the bytes before that, from `proof_start` on.

        Raises: TaskFailed.
        """
        source = self._sources.opening()
        if source is None:
            lost = self._sources.verdict() or NOBODY
            raise TaskFailed(lost.code, lost.message)
        asked = None
        if gap is not None:
            start, end, version = gap
            agreement = self._sources.agreement(source, version, is_first=True)
            offset = proof_start(start) if source.url[:3].lower() == "ftp" else start
            asked = ResumePoint(offset=offset, end=end, version=version, agreement=agreement, proof_end=start)
        self.open(source, asked, listener, now)

    def open_again(self, segment: Segment, listener: Listener, now: float) -> None:
        """Repeat a request that is over, for what is still wanted of it.

        Raises: TaskFailed.
        """
        asked = segment.asked
        if asked is not None and segment.end is not None:
            asked = replace(asked, end=segment.end)
        self.open(segment.source, asked, listener, now)

    def open(self, source: Source, asked: ResumePoint | None, listener: Listener, now: float) -> Segment:
        """Send a request for a range, or for the whole file (`asked` is None).

        Raises: TaskFailed.
        """
        validator = validator_for(source, asked, is_main=source is self._sources.main)
        request = request_for(self._job, source, asked, validator)
        segment = self._add(Segment(self._connections.send(request, listener), source, asked, now))
        segment.wanted_if_range = validator is not None
        return segment

    def take_over(self, connection: Connection, begun_mono: float) -> None:
        """Take in a request for the whole file that was sent to the first source."""
        self._add(Segment(connection, self._sources.main, None, begun_mono))

    def _add(self, segment: Segment) -> Segment:
        self.segments[segment.connection] = segment
        segment.source.connections += 1
        return segment

    def release(self, segment: Segment) -> None:
        """Let go of a segment whose request is over."""
        if not self.has(segment):
            return
        del self.segments[segment.connection]
        segment.source.connections -= 1
        if segment.rival is not None:
            segment.rival.rival = None
        self._throttle.forget(segment)
        self._connections.give_back(segment.connection)

    def stop(self, segment: Segment) -> None:
        """Stop a request that is under way, and let go of it."""
        if self.has(segment):
            segment.connection.stop()
            self.release(segment)

    def stop_all(self) -> None:
        """Stop every request."""
        for segment in self.all():
            self.stop(segment)
