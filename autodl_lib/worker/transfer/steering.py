"""Which piece of the file a free connection should fetch, and which connection isn't worth its place. Pure.

Runs as: the task's owner.  Talks to: nobody; no I/O.
First what nobody fetches; then a share of the piece that will be done last, so large that both are done at the same
time; and where a piece crawls so slowly that nothing sensible can be left to it, all of it, as a race: both
connections bring the same bytes, and the first one to be done ends the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

LEAST_PIECE_BYTES = 16 * 1024
LEAST_GAIN_S = 0.03
_TRUSTED_FOR_S = 0.1
"""So long, a connection is thought to be as fast as others: it may have only begun."""
_JUDGED_AFTER_S = 0.3
_CRAWLS = 0.25
"""A connection that is slower than this part of the usual speed is replaced, if that gains enough."""
_REPLACEMENT_GAIN = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A connection at work: where it is, where it ends, how fast it is, and for how long it has been at it."""

    key: int
    position: int
    end: int
    speed_bps: float
    age_s: float
    in_race: bool = False

    def remaining_bytes(self) -> int:
        """Return what it has before it."""
        return self.end - self.position

    def remaining_s(self) -> float:
        """Return how long that will take."""
        return self.remaining_bytes() / self.speed_bps if self.speed_bps > 0 else float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What to fetch: from `start` up to, not including, `end`; `victim` is the flow that it is taken from.

    In a race, the victim keeps it too.
    """

    start: int
    end: int
    victim: int | None = None
    is_race: bool = False


def usual_speed_bps(flows: Sequence[Flow]) -> float:
    """Return what a further connection may be expected to bring: the faster half's speed."""
    speeds = sorted(flow.speed_bps for flow in flows if flow.speed_bps > 0)
    return float(median(speeds[len(speeds) // 2 :])) if speeds else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What a further connection may be expected to do: its speed, and how long it takes to its first byte."""

    speed_bps: float
    delay_s: float


def next_piece(gaps: Sequence[tuple[int, int]], flows: Sequence[Flow], prospect: Prospect) -> Piece | None:
    """Return the piece for a free connection; None if there is none that is worth it."""
    if gaps:
        start, end = gaps[0]
        return Piece(start=start, end=end)
    if prospect.speed_bps <= 0:
        return None
    for victim in sorted(flows, key=Flow.remaining_s, reverse=True):
        piece = _share_of(victim, prospect.speed_bps, prospect.delay_s)
        if piece is not None:
            return piece
    return None


def _share_of(victim: Flow, usual_bps: float, delay_s: float) -> Piece | None:
    """Return what to take from a flow, None where that gains too little."""
    remaining = victim.remaining_bytes()
    if remaining <= 0 or victim.in_race:
        return None
    is_new = victim.age_s < 2 * delay_s + _TRUSTED_FOR_S
    speed = max(victim.speed_bps, usual_bps) if is_new else victim.speed_bps
    # Both are done at the same time when x / usual + delay = (remaining - x) / speed.
    share = int((remaining - speed * delay_s) * usual_bps / (speed + usual_bps))
    alone_s = remaining / speed if speed > 0 else float("inf")
    if alone_s - (delay_s + share / usual_bps) < LEAST_GAIN_S or share < min(LEAST_PIECE_BYTES, remaining):
        return None
    if remaining - share < LEAST_PIECE_BYTES:
        return Piece(start=victim.position, end=victim.end, victim=victim.key, is_race=True)
    return Piece(start=victim.end - share, end=victim.end, victim=victim.key)


def crawler(flows: Sequence[Flow], prospect: Prospect) -> int | None:
    """Return the flow that a fresh connection should replace, None where all are worth their place."""
    usual_bps, delay_s = prospect.speed_bps, prospect.delay_s
    for flow in sorted(flows, key=lambda flow: flow.speed_bps):
        if flow.age_s < _JUDGED_AFTER_S + 2 * delay_s:
            continue
        anew_s = delay_s + flow.remaining_bytes() / usual_bps if usual_bps > 0 else float("inf")
        if flow.speed_bps < _CRAWLS * usual_bps and flow.remaining_s() > LEAST_GAIN_S + _REPLACEMENT_GAIN * anew_s:
            return flow.key
    return None
