"""What each assignment may take of what is scarce: connections to hosts, and bytes a second.

Runs as: the supervisor.  Talks to: nobody; no I/O. The pool tells it of leases and sends the orders that it returns.
Invariants: a lease is known here from its handing out until its transfer is over, however that came about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.contract.worker_messages import Grant, Progress, SetRate, Started, Yielded
from autodl_lib.contract.worker_states import LeasePhase
from autodl_lib.supervisor.scheduling.host_ledger import Grants, HostLedger, user_key
from autodl_lib.supervisor.scheduling.rate_control import RateControl, Rates
from autodl_lib.supervisor.scheduling.rate_limits import RateLimits
from autodl_lib.supervisor.workers.admission import Admitted
from autodl_lib.supervisor.workers.worker_handle import Lease

_OVER = frozenset({LeasePhase.READY, LeasePhase.ENDED})

Orders = list[tuple[Lease, Grant | SetRate]]
"""What to tell whom."""


class Allotments:
    """Both ledgers, by lease."""

    def __init__(self, limits: RateLimits, speed_of: Callable[[TaskId], int | None]) -> None:
        self.hosts = HostLedger()
        self.hosts.held_for = self._held_for
        self.held_for: Callable[[Uid], Set[str]] = lambda _: frozenset()
        """Return the hosts that asked to be left alone by a user."""
        self.rates = RateControl(limits, speed_of)
        self._leases: dict[str, Lease] = {}

    def add(self, lease: Lease, worker_key: str) -> None:
        """Take up a lease that is about to be handed to a worker."""
        self._leases[lease.id] = lease
        user = user_key(lease.uid)
        self.hosts.add(
            lease.id,
            worker_key,
            lease.sources,
            lease.connections,
            user if user in self.hosts.user_limits else None,
        )
        self.rates.add(lease.id, worker_key, lease.uid, (lease.task_id, lease.limit_rate_bps))

    def _held_for(self, lease_id: str) -> Set[str]:
        lease = self._leases.get(lease_id)
        return self.held_for(lease.uid) if lease is not None else frozenset()

    def end(self, lease: Lease) -> None:
        """A lease's transfer is over; for one that is not known, nothing."""
        if self._leases.pop(lease.id, None) is not None:
            self.hosts.end(lease.id)
            self.rates.end(lease.id)

    def first(self, lease: Lease) -> tuple[tuple[int, ...], int]:
        """Return what a lease begins with, as its assignment goes out now: connections and rate."""
        return self.hosts.first_grant(lease.id), self.rates.first_rate(lease.id)

    def take(self, item: Admitted) -> Orders | None:
        """Take in a report; return what follows, None where it is an answer that nobody asked for."""
        lease, report = item.lease, item.report
        if isinstance(report, Progress):
            return []
        if isinstance(report, Yielded):
            grants = self.hosts.yielded(lease.id, report.connections)
            return None if grants is None else self._orders(grants, [])
        if lease.phase in _OVER:
            self.end(lease)
        elif isinstance(report, Started):
            self.rates.started(lease.id)
            return self._orders(self.hosts.started(lease.id), [])
        return []

    def balance(self, waiting: Mapping[str, int]) -> Orders:
        """Share anew what has changed; `waiting` counts the tasks that could start but for a full host."""
        return self._orders(self.hosts.balance(waiting), self.rates.balance())

    def tick(self) -> Orders:
        """Share rates anew, since speeds have changed."""
        return self._orders([], self.rates.balance(tick=True))

    def is_empty(self) -> bool:
        """Return whether nothing is allotted at all."""
        return not self._leases and self.hosts.is_empty() and self.rates.is_empty

    def _orders(self, grants: Grants, rates: Rates) -> Orders:
        orders: Orders = []
        for key, connections in grants:
            lease = self._leases[key]
            lease.grants += 1
            orders.append((lease, Grant(lease=key, connections=connections)))
        orders += [(self._leases[key], SetRate(lease=key, limit_rate_bps=rate)) for key, rate in rates]
        return orders
