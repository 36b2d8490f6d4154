"""What each running transfer may take now, as limits, transfers and their speeds change.

Runs as: the supervisor.  Talks to: nobody; no I/O. The pool tells it of leases and sends the rates that it returns.
A worker under a rate transfers one file at a time, so a rate is a worker's; the tasks that it has ahead carry the same.
Invariants: what workers were told adds up to no more than the limits, but for changes of up to 5%, which
are not worth an order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.supervisor.scheduling.rate_limits import RateLimits, least
from autodl_lib.supervisor.scheduling.rate_shares import FLOOR_BPS, Demand, share_rates, wanted_bps

_WORTH_AN_ORDER = 0.05
_NEWCOMER_S = 3.0
"""So long one whose speed is not known yet may have any share; later it is one that waits for its server."""


@dataclass(slots=True, eq=False)
class _Transfer:
    """One lease: the task's own limit, and what its worker was last told (None: not sent yet)."""

    id: str
    task_id: TaskId
    most_bps: int
    told_bps: int | None = None
    started: bool = False


@dataclass(slots=True, eq=False)
class _Unit:
    """One worker's transfers, the oldest first."""

    worker: str
    uid: Uid
    transfers: dict[str, _Transfer] = field(default_factory=dict)
    share_bps: int | None = None
    changed_mono: float = 0.0

    def current(self) -> _Transfer:
        transfers = self.transfers.values()
        return next((transfer for transfer in transfers if transfer.started), next(iter(transfers)))


Rates = list[tuple[str, int]]
"""Leases, and what each may take from now on; 0 is no limit."""


class RateControl:
    """All transfers that are with workers."""

    def __init__(self, limits: RateLimits, speed_of: Callable[[TaskId], int | None]) -> None:
        """`speed_of` returns what a task's worker last reported of its speed, None where it has not."""
        self.limits = limits
        self._speed_of = speed_of
        self._units: dict[str, _Unit] = {}
        self._unit_of: dict[str, _Unit] = {}
        self._dirty = False
        self._forced = False
        self._was_active = False

    # --- what the pool tells ---

    def add(self, lease: str, worker: str, uid: Uid, task: tuple[TaskId, int]) -> None:
        """Take up a lease of a task (its number, and its own limit)."""
        unit = self._units.get(worker)
        if unit is None:
            unit = self._units[worker] = _Unit(worker, uid)
            self._dirty = True
        task_id, most_bps = task
        unit.transfers[lease] = _Transfer(lease, task_id, most_bps)
        unit.changed_mono = time.monotonic()
        self._unit_of[lease] = unit

    def end(self, lease: str) -> None:
        """A lease is over, however it ended; for one that is not known, nothing."""
        unit = self._unit_of.pop(lease, None)
        if unit is None:
            return
        del unit.transfers[lease]
        unit.changed_mono = time.monotonic()
        if not unit.transfers:
            del self._units[unit.worker]
        self._dirty = True

    def started(self, lease: str) -> None:
        """A lease's transfer has begun."""
        unit = self._unit_of.get(lease)
        if unit is not None and not unit.transfers[lease].started:
            unit.transfers[lease].started = True
            self._dirty = True

    def set_task_limit(self, lease: str, most_bps: int) -> None:
        """A task's own limit has changed."""
        unit = self._unit_of.get(lease)
        if unit is not None:
            unit.transfers[lease].most_bps = most_bps
            self.limits_changed()

    def limits_changed(self) -> None:
        """Share anew at the next `balance`, and tell everybody what changed at all."""
        self._dirty = self._forced = True

    # --- what comes of it ---

    @property
    def is_active(self) -> bool:
        """Whether there is anything to share that moves: a limit over several transfers, and transfers."""
        return bool(self._units) and self._has_limit()

    @property
    def is_empty(self) -> bool:
        """Return whether no lease is known."""
        return not (self._units or self._unit_of)

    def balance(self, *, tick: bool = False) -> Rates:
        """Share anew if anything changed, or (`tick`) since speeds do; return whom to tell what."""
        if not self._units or not (self._dirty or tick):
            return []
        active = self._has_limit()
        if active or self._was_active or self._forced:
            self._share()
            rates = self._changes(force=self._forced or active != self._was_active)
        else:
            rates = []
        self._was_active, self._dirty, self._forced = active, False, False
        return rates

    def first_rate(self, lease: str) -> int:
        """Return what a lease begins with, as its assignment goes out now."""
        unit = self._unit_of[lease]
        transfer = unit.transfers[lease]
        transfer.told_bps = _rate(unit, transfer)
        return transfer.told_bps

    # --- inside ---

    def _has_limit(self) -> bool:
        return bool(self.limits.daemon_bps) or any(self.limits.user_bps(unit.uid) for unit in self._units.values())

    def _share(self) -> None:
        units = list(self._units.values())
        uids = {unit.uid for unit in units}
        users = {uid: limit for uid in uids if (limit := self.limits.user_bps(uid))}
        if not users and not self.limits.daemon_bps:
            shares: list[int | None] = [None] * len(units)
        else:
            shares = share_rates(self.limits.daemon_bps or None, users, [self._demand(unit) for unit in units])
        for unit, share in zip(units, shares, strict=True):
            unit.share_bps = share

    def _demand(self, unit: _Unit) -> Demand:
        current = unit.current()
        most = float(current.most_bps) if current.most_bps else math.inf
        speed = self._speed_of(current.task_id)
        if speed is not None:
            wanted = wanted_bps(speed, current.told_bps or None)
        elif time.monotonic() - unit.changed_mono < _NEWCOMER_S:
            wanted = math.inf
        else:
            wanted = FLOOR_BPS
        return Demand(uid=unit.uid, wanted_bps=wanted, most_bps=most)

    def _changes(self, *, force: bool) -> Rates:
        rates: Rates = []
        for unit in self._units.values():
            for transfer in unit.transfers.values():
                told, rate = transfer.told_bps, _rate(unit, transfer)
                if told is None or told == rate:
                    continue
                if force or not told or not rate or abs(rate - told) > _WORTH_AN_ORDER * told:
                    transfer.told_bps = rate
                    rates.append((transfer.id, rate))
        return rates


def _rate(unit: _Unit, transfer: _Transfer) -> int:
    return least(transfer.most_bps, unit.share_bps or 0)
