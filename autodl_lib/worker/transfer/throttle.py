"""A transfer's rate limit, and the segments whose bytes have to wait for it.

Runs as: the task's owner.  Talks to: nobody; no I/O.
Invariants: a segment waits only under a limit; whoever lifts the limit lets the waiting ones go on.
"""

from __future__ import annotations

import time

from autodl_lib.worker.transfer.rate_limiter import RateLimiter
from autodl_lib.worker.transfer.segment import Segment

_NEVER = float("inf")


class Throttle:
    """One limit for all connections of a transfer, or none."""

    def __init__(self, rate_bps: int, now: float) -> None:
        self._limiter = RateLimiter(rate_bps, now) if rate_bps else None
        self._waiting: list[Segment] = []

    def rate_bps(self) -> int:
        """Return the limit, 0 for none."""
        return self._limiter.rate_bps if self._limiter is not None else 0

    def set_rate(self, rate_bps: int, now: float) -> None:
        """Change the limit, 0 is none; what waits goes on only by `next_turn`."""
        if rate_bps == 0:
            self._limiter = None
        elif self._limiter is not None:
            self._limiter.set_rate(rate_bps, now)
        else:
            self._limiter = RateLimiter(rate_bps, now)

    def admits(self, segment: Segment) -> bool:
        """Tell whether a segment may take bytes; if not, it waits for its turn."""
        if self._limiter is None or self._limiter.may_take(time.monotonic()):
            return True
        self._waiting.append(segment)
        return False

    def take(self, size_bytes: int) -> None:
        """Count what a segment has taken."""
        if self._limiter is not None:
            self._limiter.take(size_bytes)

    def paid_mono(self) -> float:
        """Return when to look again whether the last bytes have had their time, 0 when they have."""
        now = time.monotonic()
        return 0.0 if self._limiter is None or self._limiter.may_take(now) else now + self._limiter.wait_s()

    def is_holding_back(self) -> bool:
        """Tell whether any segment waits."""
        return bool(self._waiting)

    def is_turn(self, now: float) -> bool:
        """Tell whether those that wait may go on."""
        return bool(self._waiting) and (self._limiter is None or self._limiter.may_take(now))

    def next_turn(self) -> list[Segment]:
        """Return those that waited, who now go on or wait anew; another one is first each time."""
        waited, self._waiting = self._waiting, []
        return waited[1:] + waited[:1]

    def forget(self, segment: Segment) -> None:
        """Let go of a segment that is over."""
        if segment in self._waiting:
            self._waiting.remove(segment)

    def wake_mono(self) -> float:
        """Return when `is_turn` becomes true, 0 when it is."""
        if not self._waiting:
            return _NEVER
        now = time.monotonic()
        return 0.0 if self.is_turn(now) else now + (self._limiter.wait_s() if self._limiter is not None else 0.0)
