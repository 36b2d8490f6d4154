"""The connections that help a transfer: how many, each at which piece, and which of them is not worth its place.

Runs as: the task's owner.  Talks to: its transfer; decides by ramp and steering.
Invariants: no source gets more connections than it was granted; the last connection at work is closed only for a
fresh one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autodl_lib.worker.transfer.ramp import Ramp, Reading
from autodl_lib.worker.transfer.segment import Segment
from autodl_lib.worker.transfer.steering import Flow, Piece, Prospect, crawler, next_piece, usual_speed_bps

if TYPE_CHECKING:
    from autodl_lib.worker.transfer.transfer import Transfer

LEAST_FILE_BYTES = 256 * 1024
"""A smaller file is never fetched in pieces."""
_STEER_EVERY_S = 0.05
_LEAST_BPS = 256
_FIRST_PATIENCE_S = 5.0
_LONGEST_PATIENCE_S = 60.0
_FORGIVEN_AFTER_S = 30.0
_FIRST_BRAKE_S = 0.5
_LONGEST_BRAKE_S = 15.0
_MEMORY_S = 2.0
"""After so long, half of the usual speed is forgotten: the whole network may have become slow."""


class Spreading:
    """Steers the connections of one transfer whose version and size are known."""

    def __init__(self, transfer: Transfer, now: float) -> None:
        self.has_spread = False
        """Whether there ever was a second connection."""
        self._transfer = transfer
        self._ramp = Ramp(self._reading(now))
        self._next_mono = now + _STEER_EVERY_S
        self._pace = (now, transfer.received_bytes)
        self._patience_s = _FIRST_PATIENCE_S
        self._replaced = 0
        self._replaced_mono = now
        self._no_replacement_until_mono = 0.0
        self._usual = (now, 0.0)
        """When the usual speed was looked at, and what it was."""

    def wake_mono(self) -> float:
        """Return when `steer` has something to do by time alone."""
        return self._next_mono

    def steer(self, now: float) -> None:
        """Open and close connections as it pays.

        Raises: OSError.
        """
        self._next_mono = now + _STEER_EVERY_S
        target = self._ramp.decide(self._reading(now))
        while len(self._transfer.segments) > target:
            self._close(self._slowest(now))
        while len(self._transfer.segments) < target and self._open(now):
            pass
        self._replace_crawler(now)
        self._refresh(now)

    def obey_grants(self, now: float) -> None:
        """Close the connections that a source has beyond its grant.

        Raises: OSError.
        """
        for source in self._transfer.sources.all:
            while source.connections and self._transfer.sources.room(source) < 0 and len(self._transfer.segments) > 1:
                mine = [s for s in self._transfer.segments.values() if s.source is source]
                self._close(min(mine, key=lambda segment: segment.speed_bps(now)))

    def lost_one(self, now: float) -> None:
        """A connection failed: go on with those that are left, for a while."""
        self._ramp.cap(len(self._transfer.segments), now)

    def absorb(self, gap_start: int) -> None:
        """Let the connection before a gap go on into it, where its response goes that far."""
        transfer = self._transfer
        for segment in transfer.segments.values():
            if segment.end == gap_start and segment.is_cut_short() and segment.rival is None:
                gap_end = next((end for start, end in transfer.missing() if start == gap_start), gap_start)
                reach = gap_end if segment.natural_end is None else min(gap_end, segment.natural_end)
                segment.end = max(gap_start, reach)
                return

    def _reading(self, now: float) -> Reading:
        transfer = self._transfer
        size = transfer.version.size if transfer.version is not None else None
        asked = transfer.job.options.connections
        most = transfer.sources.most_connections()
        return Reading(
            now=now,
            received_bytes=transfer.received_bytes,
            remaining_bytes=None if size is None else size - transfer.bytes_done(),
            connections=len(transfer.segments),
            delivering=sum(1 for segment in transfer.segments.values() if segment.received_bytes),
            busy_s=transfer.busy_s(now),
            limit_bps=transfer.limit_bps(),
            most=most if asked is None else min(most, asked),
        )

    def _flows(self, now: float) -> list[tuple[Segment, Flow]]:
        size = self._transfer.version.size if self._transfer.version is not None else None
        return [
            (
                segment,
                Flow(
                    key=key,
                    position=segment.reach(),
                    end=segment.end if segment.end is not None else size or 0,
                    speed_bps=segment.speed_bps(now),
                    age_s=now - segment.begun_mono,
                    in_race=segment.rival is not None,
                ),
            )
            for key, segment in enumerate(self._transfer.segments.values())
        ]

    def _open(self, now: float) -> bool:
        """Start one connection more where there is work for it."""
        source = self._transfer.sources.for_range(now)
        if source is None:
            return False
        flows = self._flows(now)
        prospect = self._prospect(flows, source.delay_s, now)
        piece = next_piece(self._transfer.missing(), [flow for _, flow in flows], prospect)
        if piece is None:
            return False
        segment = self._transfer.open_range(source, piece.start, piece.end, now)
        if segment is None:
            return False
        self.has_spread = True
        self._share(flows, piece, segment)
        return True

    @staticmethod
    def _share(flows: list[tuple[Segment, Flow]], piece: Piece, taker: Segment) -> None:
        for victim, flow in flows:
            if flow.key != piece.victim:
                continue
            if piece.is_race:
                victim.rival, taker.rival = taker, victim
            else:
                victim.end = piece.start

    def _refresh(self, now: float) -> None:
        """Begin anew with one connection where all together bring next to nothing; wait longer each time."""
        transfer = self._transfer
        then, received_bytes = self._pace
        if now - then < self._patience_s:
            return
        brought_bps = (transfer.received_bytes - received_bytes) / (now - then)
        self._pace = (now, transfer.received_bytes)
        if brought_bps >= _LEAST_BPS or 0 < transfer.limit_bps() < 2 * _LEAST_BPS:
            self._patience_s = _FIRST_PATIENCE_S
        elif any(source.is_willing(now) for source in transfer.sources.all):
            self._patience_s = min(_LONGEST_PATIENCE_S, 2 * self._patience_s)
            for segment in tuple(transfer.segments.values()):
                self._close(segment)
            self._ramp.cap(1, now)
            self._open(now)

    def _replace_crawler(self, now: float) -> None:
        if now < self._no_replacement_until_mono:
            return
        flows = self._flows(now)
        delay_s = max((segment.source.delay_s for segment, _ in flows), default=0.0)
        key = crawler([flow for _, flow in flows], self._prospect(flows, delay_s, now))
        if key is None:
            return
        [segment] = [segment for segment, flow in flows if flow.key == key]
        if not segment.is_blamed and (not segment.received_bytes or len(self._transfer.sources.all) > 1):
            segment.is_blamed = True
            segment.source.failed(now)
        if self._transfer.sources.for_range(now) is None and len(self._transfer.segments) == 1:
            return
        self._close(segment)
        self._open(now)
        self._brake(now)

    def _brake(self, now: float) -> None:
        """Wait longer each time, where fresh connections crawl, too."""
        if now - self._replaced_mono > _FORGIVEN_AFTER_S:
            self._replaced = 0
        self._replaced += 1
        self._replaced_mono = now
        excess = self._replaced - self._ramp.target
        if excess > 0:
            self._no_replacement_until_mono = now + min(_LONGEST_BRAKE_S, _FIRST_BRAKE_S * 2 ** min(excess, 8))

    def _prospect(self, flows: list[tuple[Segment, Flow]], delay_s: float, now: float) -> Prospect:
        """Expect the usual speed of now, or what is left in memory of that of before, when it is higher."""
        then, remembered_bps = self._usual
        usual_bps = usual_speed_bps([flow for _, flow in flows])
        speed_bps = max(usual_bps, remembered_bps * 0.5 ** ((now - then) / _MEMORY_S))
        self._usual = (now, speed_bps)
        return Prospect(speed_bps=speed_bps, delay_s=delay_s)

    def _slowest(self, now: float) -> Segment:
        return min(self._transfer.segments.values(), key=lambda segment: segment.speed_bps(now))

    def _close(self, segment: Segment) -> None:
        self._transfer.close_segment(segment)
        self.absorb(segment.position)
