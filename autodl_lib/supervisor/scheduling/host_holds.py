"""Hosts that asked to be left alone for a while (Retry-After), each for all tasks of the user who was told so.

Runs as: the supervisor.  Talks to: nobody; no I/O. In memory: a daemon that starts anew asks again.
Security: what a host said is the word of a worker, a proxy, a name server, all of which a user may have in hand. It
counts for that user alone: nobody keeps another from a host. Each user's first request hears it anew.
Invariants: no hold is longer than a day, and of each user no more hosts are remembered than HOSTS_LIMIT.
"""

from __future__ import annotations

from collections.abc import Set

from autodl_lib.contract.task import Uid

LONGEST_HOLD_S = 86400.0
HOSTS_LIMIT = 1000


class HostHolds:
    """Which hosts are held for whom, and until when; times are monotonic."""

    def __init__(self) -> None:
        self._until_mono: dict[Uid, dict[str, float]] = {}

    def hold(self, uid: Uid, host: str, seconds: float, now_mono: float) -> None:
        """Leave a host alone for so long; a longer hold that it has already stays."""
        until = now_mono + min(max(seconds, 0.0), LONGEST_HOLD_S)
        mine = self._until_mono.setdefault(uid, {})
        if until <= mine.get(host, now_mono):
            return
        if host not in mine and len(mine) >= HOSTS_LIMIT:
            self.expire(now_mono)
            if len(mine) >= HOSTS_LIMIT:
                return
        mine[host] = until
        self._until_mono[uid] = mine

    def lift(self, uid: Uid, host: str) -> None:
        """Forget what a host asked for: its user wants it asked now."""
        mine = self._until_mono.get(uid)
        if mine is not None and mine.pop(host, None) is not None and not mine:
            del self._until_mono[uid]

    def expire(self, now_mono: float) -> None:
        """Forget the holds that are over."""
        for uid, holds in list(self._until_mono.items()):
            for host in [host for host, until in holds.items() if until <= now_mono]:
                del holds[host]
            if not holds:
                del self._until_mono[uid]

    def are_any(self) -> bool:
        """Return whether any host is held for anybody."""
        return bool(self._until_mono)

    def of(self, uid: Uid) -> Set[str]:
        """Return the hosts that are held for a user, as of the last `expire`."""
        return self._until_mono[uid].keys() if uid in self._until_mono else frozenset()

    def left_s(self, uid: Uid, host: str, now_mono: float) -> float:
        """Return for how long a host is still held for a user, 0 for one that is not."""
        return max(0.0, self._until_mono.get(uid, {}).get(host, now_mono) - now_mono)

    def next_end_mono(self) -> float | None:
        """Return when the next hold ends."""
        return min((until for holds in self._until_mono.values() for until in holds.values()), default=None)
