"""A range of the file as one connection fills it.

Runs as: the task's owner.  Talks to: the part file.
`end` is how far this connection is wanted to go, `natural_end` how far its response goes: further, when another
connection has taken over what comes after `end`.
Invariants: nothing is written at or after `end`; at most BASIN_PIECES of libcurl's pieces are held in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from autodl_lib.worker.files.part_file import PartFile
from autodl_lib.worker.network.connection import BASIN_PIECES, Connection
from autodl_lib.worker.network.response import Accept, Judgement, ResumePoint
from autodl_lib.worker.transfer.sources import Source

WRITE_BACK_BYTES = 32 * 1024 * 1024
"""After so much, the disk is set to work: syncing a large file at its end then finds little left to do."""

_WORTH_A_TAP_BYTES = 16 * 1024 * 1024
_WORTH_A_TAP_BPS = 32 * 1024 * 1024
"""Where the network is slower, what a byte costs here does not matter, and a connection that can be used again does."""

_WINDOW_S = 0.3
_LEAST_WINDOW_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What one call of `write` has put into the part file: a half-open range, and whether more came than fits."""

    start: int
    end: int
    overran: bool


class Segment:
    """One request and where its bytes go."""

    def __init__(self, connection: Connection, source: Source, asked: ResumePoint | None, now: float) -> None:
        self.connection = connection
        self.source = source
        self.asked = asked
        """None for the whole file."""
        self.is_accepted = False
        self.judgement: Judgement | None = None
        """What was decided about a response that was not accepted."""
        self.drained_bytes = 0
        self.start = asked.offset if asked is not None else 0
        self._proof_end = asked.proof_end if asked is not None else 0
        """Up to there, what comes must be what is there already."""
        self.position = self.start
        self.end = asked.end if asked is not None else None
        self.natural_end = self.end
        self.rival: Segment | None = None
        """Who fetches the same bytes, in a race."""
        self.begun_mono = now
        self.seen_bytes = 0
        """Of heads and bodies, as far as libcurl told."""
        self.received_bytes = 0
        self.wanted_if_range = False
        self.is_untappable = False
        """Whether its body can only come by libcurl."""
        self.is_blamed = False
        """Whether its source was told that it is too slow."""
        self._sent_to_disk = self.start
        self._buffers: list[bytes] = []
        self._buffered = 0
        self._marks = ((now, 0), (now, 0))

    def speaks_http(self) -> bool:
        """Tell whether the response is one of HTTP: a redirect may have led to FTP."""
        return self.source.is_http and not self.connection.has_left_http()

    def accept(self, accepted: Accept) -> None:
        """Begin to fill the file where the response begins."""
        self.is_accepted = True
        self.start = self.position = self._sent_to_disk = accepted.offset
        self.natural_end = accepted.end
        if not accepted.is_part:
            self._proof_end = 0
        if self.end is None or (accepted.end is not None and accepted.end < self.end):
            self.end = accepted.end

    def hold(self, data: bytes, *, pour: bool) -> bool:
        """Keep bytes until the next `write`; True when it is time for that.

        `pour`: the connection appends what follows by itself.
        """
        self._buffers.append(data)
        if pour:
            self.connection.pour_into(self._buffers)
        return len(self._buffers) >= BASIN_PIECES

    def count(self) -> int:
        """Take in what the connection has appended; return how many bytes that were."""
        before, self._buffered = self._buffered, sum(map(len, self._buffers))
        self.received_bytes += self._buffered - before
        return self._buffered - before

    def held_bytes(self) -> int:
        """Return how much of what is wanted is in memory only."""
        return self._buffered if self.end is None else min(self._buffered, self.end - self.position)

    def reach(self) -> int:
        """Return how far the file is filled, with what is in memory."""
        return self.position + self.held_bytes()

    def is_full(self) -> bool:
        """Tell whether everything that is wanted of this connection has come."""
        return self.end is not None and self.position + self._buffered >= self.end

    def is_cut_short(self) -> bool:
        """Tell whether the response goes on after what is wanted of it."""
        return self.end is not None and (self.natural_end is None or self.natural_end > self.end)

    def overran(self) -> bool:
        """Tell whether more has come than the response announced."""
        return self.natural_end is not None and self.position + self._buffered > self.natural_end

    def proves_itself(self, part: PartFile) -> bool:
        """Tell whether the held bytes are those of the part file, as far as they must be.

        Raises: OSError.
        """
        size = min(self._buffered, self._proof_end - self.position)
        return size <= 0 or part.has(b"".join(self._buffers)[:size], self.position)

    def write(self, part: PartFile) -> Written | None:
        """Write what is held; None when that is nothing.

        Raises: OSError.
        """
        if not self._buffered:
            return None
        buffers, size = self._buffers.copy(), self._buffered
        overran = self.overran()
        self._buffers.clear()
        self._buffered = 0
        if self.end is not None and size > self.end - self.position:
            size = max(0, self.end - self.position)
            buffers = [b"".join(buffers)[:size]] if size else []
        if buffers:
            part.write(buffers, self.position)
        self.position += size
        return Written(start=self.position - size, end=self.position, overran=overran)

    def take_written(self) -> tuple[int, int] | None:
        """Return the offset and length of what was written since the last time, once that is worth it."""
        offset, length = self._sent_to_disk, self.position - self._sent_to_disk
        if length < WRITE_BACK_BYTES:
            return None
        self._sent_to_disk = self.position
        return offset, length

    def is_worth_a_tap(self, now: float) -> bool:
        """Tell whether the rest of the body is to come past libcurl, as far as can be told from here."""
        if self.is_untappable or not self.is_accepted or self.judgement is not None or not self.speaks_http():
            return False
        if self.end is None or self.natural_end is None or self.end - self.position < _WORTH_A_TAP_BYTES:
            return False
        return not self.connection.is_tapped() and self.speed_bps(now) >= _WORTH_A_TAP_BPS

    def take_moved(self, size: int) -> None:
        """Take in what was moved into the part file past this memory."""
        self.position += size
        self.received_bytes += size

    def speed_bps(self, now: float) -> float:
        """Return the speed of the last moments."""
        older, newer = self._marks
        if now - newer[0] >= _WINDOW_S:
            self._marks = (newer, (now, self.received_bytes))
        elapsed = now - older[0]
        return (self.received_bytes - older[1]) / max(elapsed, _LEAST_WINDOW_S)
