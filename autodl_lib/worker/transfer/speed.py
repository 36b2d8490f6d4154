"""Smoothed speed: an average that forgets, over about two seconds.

Runs as: the task's owner.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

import math

_MEMORY_S = 2.0


class Speed:
    """Samples of a growing byte counter in, bytes a second out."""

    def __init__(self) -> None:
        self._bytes = 0
        self._mono: float | None = None
        self._bps: float | None = None

    def sample(self, total_bytes: int, now: float) -> int:
        """Return the speed at `now`, when `total_bytes` have come in all."""
        if self._mono is None:
            self._bytes, self._mono = total_bytes, now
            return 0
        elapsed = now - self._mono
        if elapsed > 0:
            current = (total_bytes - self._bytes) / elapsed
            weight = 1 - math.exp(-elapsed / _MEMORY_S)
            self._bps = current if self._bps is None else self._bps + weight * (current - self._bps)
            self._bytes, self._mono = total_bytes, now
        return round(self._bps or 0.0)
