"""Where the bytes of one file come from: its URL and its mirrors, and what has been learnt of each.

Runs as: the task's owner.  Talks to: nobody; no I/O.
Invariants: a host never has more connections than it was granted, except those that it had before a grant was
lowered, until they are closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from autodl_lib.contract.failures import FailureCode
from autodl_lib.worker.network.response import Agreement, RemoteVersion
from autodl_lib.worker.network.verdicts import Verdict, host_and_port

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 8.0
_MOST_DOUBLINGS = 8
_MOST_FAILURES = 4
_DELAY_WEIGHT = 0.3


class Source:
    """One URL of the file."""

    def __init__(self, index: int, url: str, granted: int) -> None:
        self.index = index
        self.url = url
        self.granted = granted
        self.connections = 0
        """How many are at work now."""
        self.version: RemoteVersion | None = None
        """What its last accepted response said."""
        self.sends_ranges = True
        self.takes_if_range = True
        self.failure: Verdict | None = None
        """Why it is not asked any more."""
        self.delay_s = 0.0
        """From a request to its first byte."""
        self.is_http = url[:4].lower() == "http"
        self._failures = 0
        self._rest_until_mono = 0.0

    @cached_property
    def host(self) -> str:
        """The host's name, for messages."""
        return host_and_port(self.url)[0]

    @cached_property
    def host_key(self) -> str:
        """What grants are counted by: a mirror may be on the URL's own host."""
        return ":".join(host_and_port(self.url))

    def is_willing(self, now: float) -> bool:
        """Tell whether a further connection would get a range, as far as is known."""
        return self.is_http and self.failure is None and self.sends_ranges and now >= self._rest_until_mono

    def answered(self, delay_s: float) -> None:
        """Take in that a response came and was accepted."""
        self._failures = 0
        self.delay_s = delay_s if not self.delay_s else self.delay_s + _DELAY_WEIGHT * (delay_s - self.delay_s)

    def failed(self, now: float) -> bool:
        """Take in that a connection failed; True when that has happened too often in a row."""
        self._failures += 1
        self._rest_until_mono = now + min(
            _LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(self._failures - 1, _MOST_DOUBLINGS)
        )
        return self._failures >= _MOST_FAILURES

    def rests_until_mono(self) -> float:
        """Return until when it is left alone."""
        return self._rest_until_mono


class Sources:
    """All sources of one file."""

    def __init__(self, urls: Sequence[str], granted: Sequence[int], *, has_checksum: bool, preferred: int) -> None:
        counts = [*granted, *([0] * len(urls))][: len(urls)]
        self.all = [Source(index, url, count) for index, (url, count) in enumerate(zip(urls, counts, strict=True))]
        self._has_checksum = has_checksum
        self._preferred = preferred % len(self.all)
        self.main = self.all[0]
        """The one that named the file's version."""

    def opening(self) -> Source | None:
        """Return the source to begin with: the preferred one, or the next that is granted and not given up."""
        preferred = self.all[self._preferred]
        if preferred.failure is None and preferred.granted > 0:
            return preferred
        turned = self.all[self._preferred :] + self.all[: self._preferred]
        return next((source for source in turned if source.failure is None and source.granted > 0), None)

    def for_range(self, now: float) -> Source | None:
        """Return the source with the most room for a further connection, None when there is none."""
        rooms = [(self.room(source), source) for source in self.all if source.is_willing(now)]
        with_room = [(room / source.granted, -source.index, source) for room, source in rooms if room > 0]
        return max(with_room, default=(0.0, 0, None))[2]

    def room(self, source: Source) -> int:
        """Return how many connections more a source may have; below 0: it has too many."""
        used = sum(other.connections for other in self.all if other.host_key == source.host_key)
        return source.granted - used

    def most_connections(self) -> int:
        """Return how many connections all sources together may have."""
        willing = [source for source in self.all if source.is_http and source.failure is None and source.sends_ranges]
        return sum({source.host_key: source.granted for source in willing}.values())

    def grant(self, connections: Sequence[int]) -> None:
        """Take new grants."""
        for source, count in zip(self.all, connections, strict=False):
            source.granted = count

    def agreement(self, source: Source, version: RemoteVersion, *, is_first: bool) -> Agreement:
        """Return what a range of this source must agree in with the file.

        `is_first`: with a part file of an earlier attempt, which may have had another source.
        """
        if self._has_checksum and not version.has_validator():
            return Agreement.SIZE
        if source is self.main and not (is_first and len(self.all) > 1):
            return Agreement.VERSION
        return Agreement.SIZE if self._has_checksum else Agreement.MIRROR

    def verdict(self) -> Verdict | None:
        """Return why no source is left, the most hopeful of the reasons; None when one is."""
        if self.opening() is not None:
            return None
        failures = [source.failure for source in self.all if source.failure is not None]
        if len(failures) < len(self.all):
            closed = next(source for source in self.all if source.failure is None)
            words = f"{closed.host} may not be asked now, and no other source is left"
            return Verdict(code=FailureCode.SERVER_BUSY, message=words)
        return next((failure for failure in failures if failure.may_pass()), failures[0])
