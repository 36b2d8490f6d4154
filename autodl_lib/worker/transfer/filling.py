"""Which bytes of the file are here: in the part file, and in the memory of the segments that bring them.

Runs as: the task's owner.  Talks to: the part file.
Invariants: every byte that a connection brings is counted once; bytes of a response that turned out not to know
where they belong do not count as here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from autodl_lib.contract.failures import FailureCode
from autodl_lib.worker.files.byte_ranges import ByteRanges
from autodl_lib.worker.files.control_file import Ranges
from autodl_lib.worker.files.part_file import PartFile
from autodl_lib.worker.network.response import (
    OTHER_RANGE_NOTE,
    REMOTE_CHANGED_NOTE,
    Accept,
    AskAgain,
    Refuse,
    RemoteVersion,
)
from autodl_lib.worker.network.tap import Tap
from autodl_lib.worker.network.verdicts import Verdict
from autodl_lib.worker.transfer.segment import Segment

PROOF_BYTES = 16 * 1024
"""So much of what is here is asked for once more where nothing else shows that a server goes on where it is to."""


class Filling:
    """One file, as it fills."""

    def __init__(self, write_back: Callable[[int, int], None]) -> None:
        self.version: RemoteVersion | None = None
        """Which version is being fetched, None as long as no response was accepted."""
        self.received_bytes = 0
        """That connections have brought, wanted or not."""
        self.was_assembled = False
        """Whether the part file holds bytes of more than one response."""
        self._write_back = write_back
        self._part: PartFile | None = None
        self._done = ByteRanges()
        self._earlier: tuple[Ranges, RemoteVersion] | None = None

    def resume(self, ranges: Ranges, version: RemoteVersion) -> None:
        """Go on from what an earlier attempt left, if a response fits that."""
        self._earlier = (ranges, version) if ranges else None

    def is_resuming(self) -> bool:
        """Tell whether only a part is to be asked for at first."""
        return self._earlier is not None

    def first_gap(self) -> tuple[int, int | None, RemoteVersion] | None:
        """Return what the first request is to ask for: start, end (None: to the end), version; None for all."""
        if self._earlier is None:
            return None
        ranges, version = self._earlier
        size = version.size
        start, end = ByteRanges(ranges).missing(0, size if size is not None else ranges[-1][1] + 1)[0]
        return start, None if size is None or end == size else end, version

    def proof_start(self, start: int) -> int:
        """Return from where to ask again for what is here already, before a gap that begins at `start`."""
        ranges = self._earlier[0] if self._earlier is not None else ()
        begin = next((first for first, end in ranges if end == start), start)
        return max(begin, start - PROOF_BYTES)

    def begin(self, part: PartFile, accepted: Accept) -> None:
        """Fill a part file from the first response that was accepted."""
        kept = self._earlier[0] if self._earlier is not None and accepted.is_part else ()
        self._part, self.version, self._done = part, accepted.version, ByteRanges(kept)
        self.was_assembled = bool(kept)

    def forget(self) -> None:
        """The next response begins anew; until then, the part file keeps what it has."""
        self.version = self._earlier = None

    def count(self, segment: Segment) -> None:
        """Take in what a connection has brought since the last time."""
        self.received_bytes += segment.count()

    def write(self, segment: Segment) -> AskAgain | Refuse | None:
        """Write what a segment holds; returns what is wrong with its response, where that shows now.

        Raises: OSError.
        """
        if self._part is not None and segment.is_accepted and not segment.proves_itself(self._part):
            return AskAgain(note=REMOTE_CHANGED_NOTE, is_changed=True)
        written = segment.write(self._part) if self._part is not None and segment.is_accepted else None
        if written is None:
            return None
        self._done.add(written.start, written.end)
        complaint: AskAgain | Refuse | None = None
        if written.overran and segment.asked is not None and segment.source.is_http:
            complaint = AskAgain(note=OTHER_RANGE_NOTE)  # it does not know where its bytes belong
            self._done.remove(segment.start, segment.position)
        elif written.overran:
            words = f"the server sent more than the {segment.natural_end} bytes that it had announced"
            self._done.remove(segment.start, segment.position)
            complaint = Refuse(verdict=Verdict(code=FailureCode.REMOTE_CHANGED, message=words))
        self._send_to_disk(segment)
        return complaint

    def move(self, segment: Segment, tap: Tap, most_bytes: int) -> int | None:
        """Move the next bytes of a tapped body; return how many, 0 at the end, None when none are there now.

        Raises: OSError.
        """
        if self._part is None or segment.end is None:
            raise RuntimeError("nobody knows where these bytes belong")
        size = tap.move(self._part.fd, segment.position, min(most_bytes, segment.end - segment.position))
        if size:
            segment.take_moved(size)
            self.received_bytes += size
            self._done.add(segment.position - size, segment.position)
            self._send_to_disk(segment)
        return size

    def ranges(self) -> Ranges | None:
        """Return which ranges are in the part file, None when there is none yet."""
        return None if self._part is None else self._done.ranges()

    def bytes_done(self, segments: Collection[Segment]) -> int:
        """Return how many bytes of the file are here, with those that `segments` hold."""
        if self._part is None:
            return sum(end - start for start, end in self._earlier[0]) if self._earlier is not None else 0
        total = self._done.total() + sum(segment.held_bytes() for segment in segments if segment.is_accepted)
        size = self._size()
        return total if size is None else min(total, size)

    def covers(self, start: int, end: int) -> bool:
        """Tell whether all bytes of a range are in the part file."""
        return self._done.covers(start, end)

    def has_size(self) -> bool:
        """Tell whether anybody knows how many bytes the file has."""
        return self._size() is not None

    def is_complete(self) -> bool:
        """Tell whether every byte is in the part file; False while nobody knows how many there are."""
        size = self._size()
        return self._part is not None and size is not None and self._done.covers(0, size)

    def missing(self, segments: Collection[Segment]) -> list[tuple[int, int]]:
        """Return the ranges that are not in the part file and that none of `segments` is at."""
        size = self._size()
        if size is None:
            return []
        taken = ByteRanges(self._done.ranges())
        for segment in segments:
            taken.add(segment.position, segment.end if segment.end is not None else size)
        return taken.missing(0, size)

    def _send_to_disk(self, segment: Segment) -> None:
        span = segment.take_written()
        if span is not None:
            self._write_back(*span)

    def _size(self) -> int | None:
        return self.version.size if self.version is not None else None
