"""Hosts that asked to be left alone for a while (Retry-After), for all tasks of all users.

Runs as: the supervisor.  Talks to: nobody; no I/O. In memory: a daemon that starts anew asks again.
Invariants: no hold is longer than a day, and no more hosts are remembered than HOSTS_LIMIT.
"""

from __future__ import annotations

from collections.abc import Set

LONGEST_HOLD_S = 86400.0
HOSTS_LIMIT = 10_000


class HostHolds:
    """Which hosts are held, and until when; times are monotonic."""

    def __init__(self) -> None:
        self._until_mono: dict[str, float] = {}

    def hold(self, host: str, seconds: float, now_mono: float) -> None:
        """Leave a host alone for so long; a longer hold that it has already stays."""
        until = now_mono + min(max(seconds, 0.0), LONGEST_HOLD_S)
        if until <= self._until_mono.get(host, now_mono):
            return
        if host not in self._until_mono and len(self._until_mono) >= HOSTS_LIMIT:
            self.closed(now_mono)
            if len(self._until_mono) >= HOSTS_LIMIT:
                return
        self._until_mono[host] = until

    def closed(self, now_mono: float) -> Set[str]:
        """Return the hosts that are held now; the set follows what happens later."""
        for host in [host for host, until in self._until_mono.items() if until <= now_mono]:
            del self._until_mono[host]
        return self._until_mono.keys()

    def left_s(self, host: str, now_mono: float) -> float:
        """Return for how long a host is still held, 0 for one that is not."""
        return max(0.0, self._until_mono.get(host, now_mono) - now_mono)

    def next_end_mono(self) -> float | None:
        """Return when the next hold ends."""
        return min(self._until_mono.values(), default=None)
