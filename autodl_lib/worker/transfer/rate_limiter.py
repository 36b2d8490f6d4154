"""A rate limit as a token bucket, shared by all connections of a transfer.

Runs as: the task's owner.  Talks to: nobody; no I/O.
Bytes are paid for when they are taken, and a payment may leave a debt; while there is one, nothing more is taken.
"""

from __future__ import annotations

_BURST_S = 0.1
_LEAST_BURST_BYTES = 16384
_LONGEST_WAIT_S = 2.0
"""However low the rate, so often the bucket is looked at: the limit may have been changed."""


class RateLimiter:
    """So many bytes a second, and no more than a tenth of a second's worth at once."""

    def __init__(self, rate_bps: int, now: float) -> None:
        self.rate_bps = rate_bps
        self._tokens = 0.0
        self._filled_mono = now

    def set_rate(self, rate_bps: int, now: float) -> None:
        """Change the limit; a debt stays."""
        self._fill(now)
        self.rate_bps = rate_bps

    def may_take(self, now: float) -> bool:
        """Tell whether bytes may be taken now."""
        self._fill(now)
        return self._tokens >= 0

    def take(self, size_bytes: int) -> None:
        """Pay for bytes."""
        self._tokens -= size_bytes

    def wait_s(self) -> float:
        """Return for how long nothing may be taken."""
        if self._tokens >= 0:
            return 0.0
        return min(_LONGEST_WAIT_S, -self._tokens / self.rate_bps)

    def _fill(self, now: float) -> None:
        most = max(_LEAST_BURST_BYTES, self.rate_bps * _BURST_S)
        self._tokens = min(most, self._tokens + (now - self._filled_mono) * self.rate_bps)
        self._filled_mono = now
