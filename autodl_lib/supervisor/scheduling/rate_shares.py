"""How a rate is shared: the daemon's between users, each user's between their transfers. Max-min fair. Pure.

Runs as: the supervisor.  Talks to: nobody; no I/O.
Rates are in bytes a second; None is no limit, and no end to what is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autodl_lib.contract.task import Uid

HEADROOM = 1.25
FLOOR_BPS = 64 * 1024
_NEARLY_ALL = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """One transfer: whose it is, what it would take now, and the most that it may ever take."""

    uid: Uid
    wanted_bps: float = math.inf
    most_bps: float = math.inf


def wanted_bps(speed_bps: int, share_bps: int | None) -> float:
    """Return what a transfer would take, by its speed and what it was allowed.

    One that uses nearly all it may would take any more; one that is slower by itself needs some headroom
    to grow, and leaves the rest to others.
    """
    if share_bps is None or speed_bps >= _NEARLY_ALL * share_bps:
        return math.inf
    return max(HEADROOM * speed_bps, FLOOR_BPS)


def share_rates(daemon_bps: int | None, user_bps: Mapping[Uid, int], demands: Sequence[Demand]) -> list[int | None]:
    """Return what each transfer may take, in order; users that `user_bps` doesn't name have no limit of their own."""
    by_user: dict[Uid, list[int]] = {}
    for index, demand in enumerate(demands):
        by_user.setdefault(demand.uid, []).append(index)
    users = []
    for uid, indices in by_user.items():
        wanted = sum(min(demands[index].wanted_bps, demands[index].most_bps) for index in indices)
        most = min(user_bps.get(uid, math.inf), sum(demands[index].most_bps for index in indices))
        users.append(Demand(uid=uid, wanted_bps=wanted, most_bps=most))
    shares: list[int | None] = [None] * len(demands)
    for user, amount in zip(users, _divide(_or_infinite(daemon_bps), users), strict=True):
        indices = by_user[user.uid]
        for index, share in zip(indices, _divide(amount, [demands[index] for index in indices]), strict=True):
            # 0 would be no limit at all.
            shares[index] = None if math.isinf(share) else max(1, int(share))
    return shares


def _divide(amount: float, demands: Sequence[Demand]) -> list[float]:
    """Share an amount by what is wanted, and what is left then by what is allowed."""
    if math.isinf(amount):
        return [demand.most_bps for demand in demands]
    first = _fill(amount, [min(demand.wanted_bps, demand.most_bps) for demand in demands])
    room = [demand.most_bps - share for demand, share in zip(demands, first, strict=True)]
    rest = _fill(max(0.0, amount - sum(first)), room)
    return [share + more for share, more in zip(first, rest, strict=True)]


def _fill(amount: float, wants: Sequence[float]) -> list[float]:
    """Give each what it wants, or an equal part of what those who want more have together."""
    shares = [0.0] * len(wants)
    left = amount
    order = sorted(range(len(wants)), key=lambda index: wants[index])
    for done, index in enumerate(order):
        shares[index] = min(wants[index], left / (len(wants) - done))
        left -= shares[index]
    return shares


def _or_infinite(rate_bps: int | None) -> float:
    return math.inf if rate_bps is None else float(rate_bps)
