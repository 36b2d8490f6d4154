"""How many connections one file is worth: more only while they help. Pure.

Runs as: the task's owner.  Talks to: nobody; no I/O.
The number grows fourfold at a time (more, where the file would take long), so that a server which limits each
connection is soon used in full, and is taken back where the total speed does not follow. It stays at one while the
file will be there in a moment anyway, while this process is what limits the speed, and under a rate limit that one
connection fills.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

FIRST_LOOK_S = 0.03
WORTH_S = 0.5
"""A file that is complete sooner than this is not worth another connection."""
_GROWTH = 4
_LONG_S = 5.0
"""A file that would take longer than this is worth many connections at once."""
_WINDOW_S = 0.15
_LONGEST_SETTLING_S = 3.0
_FIRST_PAUSE_S = 8.0
_LONGEST_PAUSE_S = 15.0
_WELL_USED = 0.5
"""New connections that bring so much of what the first ones brought are kept, and more are tried."""
_WORTH_KEEPING = 1.15
_BURST = 0.6
_BURST_OVER_S = 0.5
_SPARE = 1.5
"""Connections that are kept for what a smaller number would bring, times this."""
_BUSY = 0.7
_LIMIT_FILLED = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is known of a transfer at one moment.

    `received_bytes`: since its begin; `remaining_bytes`: None while the size is unknown; `connections`: at work;
    `delivering`: those of them that have brought something; `busy_s`: a clock that stands still while this process
    waits; `limit_bps`: the rate limit, 0 for none; `most`: how many connections are allowed.
    """

    now: float
    received_bytes: int
    remaining_bytes: int | None
    connections: int
    delivering: int
    busy_s: float
    limit_bps: int
    most: int


class _Stage(Enum):
    LOOKING = "looking"
    SETTLING = "settling"
    MEASURING = "measuring"
    RESTING = "resting"


class Ramp:
    """Decides again and again; `target` is the present number."""

    def __init__(self, begun: Reading) -> None:
        self.target = 1
        self._stage = _Stage.LOOKING
        self._mark = begun
        self._before: tuple[int, float] = (1, 0.0)
        self._rest_until_mono = 0.0
        self._limit_bps = begun.limit_bps
        self._pause_s = _FIRST_PAUSE_S
        self._ceiling: int | None = None
        """After a refusal, the number grows by one at a time."""

    def decide(self, reading: Reading) -> int:
        """Return how many connections there should be now."""
        most = max(1, reading.most)
        if reading.limit_bps != self._limit_bps:  # all that was measured was measured under another limit
            self._limit_bps = reading.limit_bps
            self._begin(_Stage.LOOKING, reading)
        match self._stage:
            case _Stage.LOOKING:
                self._look(reading, most)
            case _Stage.SETTLING:
                self._settle(reading)
            case _Stage.MEASURING:
                self._measure(reading, most)
            case _Stage.RESTING:
                self._wait(reading)
        self.target = min(self.target, most)
        return self.target

    def cap(self, most: int, now: float) -> None:
        """Go no higher for a while: the server refused more."""
        self.target = max(1, min(self.target, most))
        self._ceiling = self.target + 1
        self._rest(now)

    def _look(self, reading: Reading, most: int) -> None:
        elapsed_s = reading.now - self._mark.now
        if elapsed_s < FIRST_LOOK_S or reading.received_bytes == self._mark.received_bytes:
            return
        speed_bps = self._speed_bps(reading)
        is_busy = reading.busy_s - self._mark.busy_s > _BUSY * elapsed_s
        fills_limit = reading.limit_bps > 0 and speed_bps > _LIMIT_FILLED * reading.limit_bps
        if reading.remaining_bytes is None:
            return
        soon_over = reading.remaining_bytes < WORTH_S * speed_bps
        if self.target >= most or is_busy or fills_limit or soon_over:
            if elapsed_s > 1.0:
                self._begin(_Stage.LOOKING, reading)
            return
        self._before = (self.target, speed_bps)
        growth = _GROWTH if reading.remaining_bytes < _LONG_S * speed_bps else _GROWTH * _GROWTH
        ceiling = most if self._ceiling is None else min(most, self._ceiling)
        self.target = min(ceiling, self.target * growth)
        self._begin(_Stage.SETTLING, reading)

    def _wait(self, reading: Reading) -> None:
        """Rest until it is time, or until it shows that the first speed was a burst at the begin."""
        if reading.now >= self._rest_until_mono:
            self._begin(_Stage.LOOKING, reading)
        elif reading.now - self._mark.now >= _BURST_OVER_S:
            was_burst = self._speed_bps(reading) < _BURST * self._before[1]
            self._begin(_Stage.LOOKING if was_burst and self._ceiling is None else _Stage.RESTING, reading)

    def _settle(self, reading: Reading) -> None:
        """Wait until the new connections deliver."""
        settled = reading.delivering >= min(self.target, reading.connections)
        if settled or reading.now - self._mark.now > _LONGEST_SETTLING_S:
            self._begin(_Stage.MEASURING, reading)

    def _measure(self, reading: Reading, most: int) -> None:
        if reading.now - self._mark.now < _WINDOW_S:
            return
        before, before_bps = self._before
        gain = self._speed_bps(reading) / max(1.0, before_bps)
        linear = min(self.target, max(before, reading.connections)) / before  # one may have broken meanwhile
        if gain >= 1 + (linear - 1) * _WELL_USED:
            self._begin(_Stage.LOOKING, reading)
            if self._ceiling is not None:
                self._ceiling = self.target + 1
            if self.target >= most:
                self._rest(reading.now)
        elif gain >= _WORTH_KEEPING:
            self.target = min(self.target, max(before + 1, math.ceil(before * gain * _SPARE)))
            self._rest(reading.now)
        else:
            self.target = before
            self._rest(reading.now)

    def _rest(self, now: float) -> None:
        self._stage = _Stage.RESTING
        self._rest_until_mono = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _begin(self, stage: _Stage, reading: Reading) -> None:
        self._stage = stage
        self._mark = reading

    def _speed_bps(self, reading: Reading) -> float:
        return (reading.received_bytes - self._mark.received_bytes) / max(0.001, reading.now - self._mark.now)
