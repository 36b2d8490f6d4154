"""Who uses how many connections to which host, over all tasks of all users, and who must give some up.

Runs as: the supervisor.  Talks to: nobody; no I/O. The pool tells it of leases and sends the grants that it returns.
A worker transfers one file at a time, or several small ones that together use no more connections than each of them
may (worker/flight.py), so it occupies on a host the most that any of its leases there may use,
and at least one while it has a lease whose URL is there (a mirror can do without).
A user with a limit of connections is a host here too, by `user_key`, on which each of their workers is as well.
Invariants: what is occupied falls only when a worker has answered a lower grant (`yielded`) or a lease has
ended; one grant of a lease is under way at a time, so an answer is never mistaken for another one's. What
is occupied is over the limit only where the limit was lowered below one connection for each worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import TypeVar

from autodl_lib.contract.task import Uid
from autodl_lib.supervisor.scheduling.host_limits import Claim, fair_shares

K = TypeVar("K")


def user_key(uid: Uid) -> str:
    """Return the name under which a user's connections to all hosts are counted; no host has such a name."""
    return f"\0{uid}"


_NO_LIMIT = 1_000_000


@dataclass(slots=True, eq=False)
class _Stake:
    """What one worker has on one host: `level` is what its leases may be given, `used` what they may be using."""

    level: int = 0
    used: int = 0
    leases: dict[str, _Entry] = field(default_factory=dict)
    wants: Counter[int] = field(default_factory=Counter)
    granted: Counter[int] = field(default_factory=Counter)
    needed: int = 0

    @property
    def want(self) -> int:
        return max(self.wants, default=0)

    @property
    def least(self) -> int:
        return 1 if self.needed else 0

    def occupied(self) -> int:
        return max(self.level, max(self.granted, default=0), self.least)


@dataclass(slots=True, eq=False)
class _Entry:
    """One lease: what it was last told it may use of each source, and what it may still be using; () is not yet."""

    lease: str
    worker: str
    sources: tuple[str, ...]
    want: int
    stakes: tuple[_Stake, ...]
    hosts_num: int
    ordered: tuple[int, ...] = ()
    granted: tuple[int, ...] = ()
    started: bool = False
    awaited: bool = False


@dataclass(slots=True, eq=False)
class _Host:
    stakes: dict[str, _Stake] = field(default_factory=dict)
    used: int = 0


Grants = list[tuple[str, tuple[int, ...]]]
"""Leases, and what each may use from now on of the host of its URL and of each mirror."""


class HostLedger:
    """All hosts in use."""

    def __init__(self) -> None:
        self.limit = 1
        self.user_limits: dict[str, int] = {}
        """How many connections a user may have over all hosts, by their key; who is not in it has no limit."""
        self.held_for: Callable[[str], Set[str]] = lambda _: frozenset()
        """Return the hosts that asked the user of a lease to be left alone: as a mirror, it does without them."""
        self._hosts: dict[str, _Host] = {}
        self._entries: dict[str, _Entry] = {}
        self._of_worker: dict[str, Counter[str]] = {}
        self._dirty: set[str] = set()
        self._waiting: dict[str, int] = {}
        self._default_want = 1

    # --- what planning asks ---

    def room(self) -> dict[str, int]:
        """Return how many connections are free on each host in use; on every other host it is the limit."""
        return {name: self._limit_of(name) - host.used for name, host in self._hosts.items()}

    def used(self, host: str) -> int:
        """Return how many connections of a host are occupied."""
        return self._hosts[host].used if host in self._hosts else 0

    def hosts_of(self, worker: str) -> Set[str]:
        """Return the hosts on which a worker has a lease whose URL is there: another one costs nothing."""
        return self._of_worker[worker].keys() if worker in self._of_worker else frozenset()

    def is_awaited(self, lease: str) -> bool:
        """Return whether a lease has been sent a grant that was not answered yet."""
        entry = self._entries.get(lease)
        return entry is not None and entry.awaited

    def is_empty(self) -> bool:
        """Return whether nothing is held at all."""
        return not (self._entries or self._hosts or self._of_worker)

    # --- what the pool tells ---

    def configure(self, limit: int, default_want: int) -> None:
        """Obey a new limit; `default_want` is what a task that waits for a host is assumed to want there."""
        self.limit, self._default_want = limit, default_want
        self._dirty.update(self._hosts)

    def set_user_limit(self, key: str, limit: int) -> None:
        """Obey a user's limit of connections, 0 for none, for leases that are taken up from now on."""
        if self.user_limits.get(key, 0) == limit:
            return
        if limit:
            self.user_limits[key] = limit
        else:
            del self.user_limits[key]
        if key in self._hosts:
            self._dirty.add(key)

    def add(self, lease: str, worker: str, sources: tuple[str, ...], want: int, user: str | None = None) -> None:
        """Take up a lease: its worker, the host of its URL and of each mirror, how many connections it wants.

        `user` is the key of its owner where they have a limit over all hosts; `want` is then meant in all.
        `first_grant` says later what it begins with.
        """
        hosts_num = len(sources)
        if user is not None:
            sources = (*sources, user)
        stakes = tuple([self._stake(name, worker) for name in sources])
        entry = _Entry(lease, worker, sources, want, stakes, hosts_num)
        self._entries[lease] = entry
        own = self._of_worker.get(worker)
        if own is None:
            own = self._of_worker[worker] = Counter()
        own[sources[0]] += 1
        entry.stakes[0].needed += 1
        if user is not None:
            stakes[-1].needed += 1
        for name, stake in zip(sources, entry.stakes, strict=True):
            if want not in stake.wants or not stake.level:
                self._dirty.add(name)
            stake.leases[lease] = entry
            stake.wants[want] += 1
            if not stake.used:
                self._settle(name, stake)

    def end(self, lease: str) -> None:
        """A lease is over, however it ended; for one that is not known, nothing."""
        entry = self._entries.pop(lease, None)
        if entry is None:
            return
        own = self._of_worker[entry.worker]
        if not _take(own, entry.sources[0]) and not own:
            del self._of_worker[entry.worker]
        entry.stakes[0].needed -= 1
        if entry.hosts_num < len(entry.stakes):
            entry.stakes[-1].needed -= 1
        for index, stake in enumerate(entry.stakes):
            stake.leases.pop(lease, None)
            is_like_others = _take(stake.wants, entry.want)
            if entry.granted:
                is_like_others = _take(stake.granted, entry.granted[index]) and is_like_others
            if is_like_others and stake.needed:
                continue  # the worker has others there that may use as much
            name = entry.sources[index]
            if entry.want not in stake.wants or not stake.needed:
                self._dirty.add(name)
            if not stake.wants:
                stake.level = 0
            self._settle(name, stake)
            if not stake.wants:
                self._drop(name, entry.worker)

    def started(self, lease: str) -> Grants:
        """A lease's transfer has begun: it may use what its worker has."""
        entry = self._entries.get(lease)
        if entry is None or entry.started:
            return []
        entry.started = True
        return self._orders([entry])

    def yielded(self, lease: str, connections: tuple[int, ...]) -> Grants | None:
        """A worker has answered a grant; return what follows, None where that was no answer to it."""
        entry = self._entries.get(lease)
        if entry is None:
            return []  # its transfer is over, and this crossed the news of it
        if not entry.awaited or len(connections) != entry.hosts_num:
            return None
        if any(count > most for count, most in zip(connections, entry.ordered, strict=False)):
            return None
        entry.awaited = False
        self._set_granted(entry, entry.ordered)
        return self._orders([entry])

    def balance(self, waiting: Mapping[str, int]) -> Grants:
        """Share anew the hosts where something changed; `waiting` counts who could start but for a full host."""
        if waiting != self._waiting:
            self._dirty.update(waiting.keys() | self._waiting.keys())
            self._waiting = dict(waiting)
        if not self._dirty:
            return []
        dirty, self._dirty = self._dirty, set()
        changed: dict[str, _Entry] = {}
        for name in dirty:
            host = self._hosts.get(name)
            if host is not None:
                changed.update((entry.lease, entry) for entry in self._share(name, host))
        return self._orders(changed.values())

    def first_grant(self, lease: str) -> tuple[int, ...]:
        """Return what a lease begins with, as its assignment goes out now."""
        entry = self._entries[lease]
        entry.ordered = self._allowed(entry)
        self._set_granted(entry, entry.ordered)
        return entry.ordered[: entry.hosts_num]

    # --- inside ---

    def _stake(self, name: str, worker: str) -> _Stake:
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host()
        stake = host.stakes.get(worker)
        if stake is None:
            stake = host.stakes[worker] = _Stake()
        return stake

    def _share(self, name: str, host: _Host) -> Iterator[_Entry]:
        """Set each worker's level; lower ones at once, higher ones as far as there is room."""
        # Whoever has more keeps the odd one: fewer grants are sent.
        stakes = sorted(host.stakes.values(), key=lambda stake: -stake.level)
        claims = [Claim(want=max(stake.want, stake.least), least=stake.least) for stake in stakes]
        claims += [Claim(want=self._default_want)] * self._waiting.get(name, 0)
        limit = self._limit_of(name)
        shares = fair_shares(limit, claims)
        raised = []
        for stake, share in zip(stakes, shares, strict=False):
            if share < stake.level:
                stake.level = share
                self._settle(name, stake)
                yield from stake.leases.values()
            elif share > stake.level:
                raised.append((stake, share))
        for stake, share in raised:
            # What it occupies already (a grant that was not answered yet) is its own.
            level = min(share, max(stake.used + limit - host.used, stake.least))
            if level > stake.level:
                stake.level = level
                self._settle(name, stake)
                yield from stake.leases.values()

    def _orders(self, entries: Iterable[_Entry]) -> Grants:
        grants: Grants = []
        for entry in entries:
            if not entry.ordered or entry.awaited:
                continue
            allowed = self._allowed(entry)
            if not entry.started:  # it is not using anything yet: only less is worth a message
                allowed = _with_sum(entry, [min(pair) for pair in zip(allowed, entry.ordered, strict=True)])
            if allowed != entry.ordered:
                both = _with_sum(entry, [max(pair) for pair in zip(allowed, entry.ordered, strict=True)])
                self._set_granted(entry, both)
                entry.ordered, entry.awaited = allowed, True
                grants.append((entry.lease, allowed[: entry.hosts_num]))
        return grants

    def _limit_of(self, name: str) -> int:
        return self.user_limits.get(name, _NO_LIMIT) if name.startswith("\0") else self.limit

    def _allowed(self, entry: _Entry) -> tuple[int, ...]:
        if len(entry.stakes) == 1:
            return (min(entry.stakes[0].level, entry.want),)
        allowed = [min(stake.level, entry.want) for stake in entry.stakes]
        held = self.held_for(entry.lease) if entry.hosts_num > 1 else frozenset[str]()
        for index, name in enumerate(entry.sources[1:], start=1):
            if name in held and name != entry.sources[0]:
                allowed[index] = 0
        if entry.hosts_num < len(allowed):
            left = allowed[-1]
            for index in range(entry.hosts_num):
                allowed[index] = min(allowed[index], left)
                left -= allowed[index]
        return _with_sum(entry, allowed)

    def _set_granted(self, entry: _Entry, granted: tuple[int, ...]) -> None:
        before, entry.granted = entry.granted, granted
        if granted == before:
            return
        for index, stake in enumerate(entry.stakes):
            stake.granted[granted[index]] += 1
            if before:
                _take(stake.granted, before[index])
            if before or granted[index] > stake.used:
                self._settle(entry.sources[index], stake)

    def _settle(self, name: str, stake: _Stake) -> None:
        """Take what a worker occupies into the host's sum; whoever wants more is looked at where it falls."""
        occupied = stake.occupied()
        if occupied != stake.used:
            if occupied < stake.used:
                self._dirty.add(name)
            self._hosts[name].used += occupied - stake.used
            stake.used = occupied

    def _drop(self, name: str, worker: str) -> None:
        host = self._hosts[name]
        if host.stakes.pop(worker, None) is not None:
            self._dirty.add(name)
        if not host.stakes:
            del self._hosts[name]
            self._dirty.discard(name)


def _with_sum(entry: _Entry, allowed: list[int]) -> tuple[int, ...]:
    """Return connections by source; the last one of a lease whose owner has a limit is their sum."""
    if entry.hosts_num < len(allowed):
        allowed[-1] = sum(allowed[: entry.hosts_num])
    return tuple(allowed)


def _take(counter: Counter[K], key: K) -> bool:
    """Count one less, and forget what is counted no more; return whether some are left."""
    left = counter[key] - 1
    if left:
        counter[key] = left
    else:
        del counter[key]
    return left > 0
