"""Which bytes of a file are there: a set of half-open ranges that grows, and what is missing from it.

Runs as: the task's owner.  Talks to: nobody; no I/O.
Invariants: ranges are ascending, not empty, and apart from each other.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from autodl_lib.worker.files.control_file import Ranges


class ByteRanges:
    """A set of byte offsets."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Put the bytes from `start` up to, not including, `end` into the set."""
        if start >= end:
            return
        ends = self._ends
        if ends and ends[-1] == start:  # the way of a single connection
            ends[-1] = end
            return
        first = bisect_left(ends, start)
        after = bisect_right(self._starts, end)
        if first < after:
            start = min(start, self._starts[first])
            end = max(end, ends[after - 1])
        self._starts[first:after] = [start]
        ends[first:after] = [end]

    def remove(self, start: int, end: int) -> None:
        """Take the bytes from `start` up to, not including, `end` out of the set."""
        if start >= end:
            return
        kept = [
            piece
            for low, high in self.ranges()
            for piece in ((low, min(high, start)), (max(low, end), high))
            if piece[0] < piece[1]
        ]
        self._starts = [low for low, _ in kept]
        self._ends = [high for _, high in kept]

    def ranges(self) -> Ranges:
        """Return the set as ranges."""
        return tuple(zip(self._starts, self._ends, strict=True))

    def total(self) -> int:
        """Return how many bytes are in the set."""
        return sum(self._ends) - sum(self._starts)

    def covers(self, start: int, end: int) -> bool:
        """Tell whether all bytes of a range are in the set."""
        index = bisect_right(self._starts, start) - 1
        return start >= end or (index >= 0 and self._ends[index] >= end)

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of a range that are not in the set, ascending."""
        gaps = []
        for low, high in zip(self._starts, self._ends, strict=True):
            if high <= start:
                continue
            if low >= end:
                break
            if low > start:
                gaps.append((start, low))
            start = high
        if start < end:
            gaps.append((start, end))
        return gaps
