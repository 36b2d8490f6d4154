"""How the connections to one host are shared between those who use it: max-min fair, in whole connections. Pure.

Runs as: the supervisor.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one holder could use of a host, and what it can't do without."""

    want: int
    least: int = 1


def fair_shares(limit: int, claims: Sequence[Claim]) -> list[int]:
    """Return what each claim gets, in order.

    Nobody gets more than it wants; who wants little leaves the rest to the others; of those who get less
    than they want, none has over one more than another, and the earlier ones have it. What each can't do
    without is given even where that is more than the limit.
    """
    level = _highest_level(limit, claims)
    shares = [_at(level, claim) for claim in claims]
    left = limit - sum(shares)
    for index, claim in enumerate(claims):
        if left <= 0:
            break
        if shares[index] == level < claim.want:
            shares[index] += 1
            left -= 1
    return shares


def _highest_level(limit: int, claims: Sequence[Claim]) -> int:
    """Return the highest level up to which all claims can be filled together."""
    low, high = 0, max((claim.want for claim in claims), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(_at(middle, claim) for claim in claims) <= limit:
            low = middle
        else:
            high = middle - 1
    return low


def _at(level: int, claim: Claim) -> int:
    return max(claim.least, min(level, claim.want))
