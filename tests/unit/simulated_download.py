"""A download over many connections in simulated time, steered by worker.steering; every step is checked.

Each byte must always be somebody's: on disk, one connection's, two in a race, or nobody's and then given out first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from autodl_lib.worker.files.byte_ranges import ByteRanges
from autodl_lib.worker.transfer.steering import (
    LEAST_PIECE_BYTES,
    Flow,
    Piece,
    Prospect,
    crawler,
    next_piece,
    usual_speed_bps,
)

MB = 1_000_000
TICK_S = 0.01
STEER_EVERY_TICKS = 5
WINDOW_S = 0.3
FORGETTING_S = 2.0
FOR_EVER_S = 3600.0


@dataclass(kw_only=True, eq=False)
class Line:
    """A connection."""

    key: int
    start: int
    position: float
    end: int
    begun: float
    slot: int
    """The lowest number that no other connection had then."""
    age_s: float = 0.0
    rival: Line | None = None
    marks: list[tuple[float, float]] = field(default_factory=list)

    def speed_bps(self, now: float) -> float:
        """Measure over the last moments, as a worker does."""
        since, position = next((mark for mark in self.marks if mark[0] >= now - WINDOW_S - TICK_S / 2), (now, 0.0))
        return (self.position - position) / max(0.05, now - since)

    def flow(self, now: float) -> Flow:
        """Tell what steering gets to know."""
        return Flow(
            key=self.key,
            position=int(self.position),
            end=self.end,
            speed_bps=self.speed_bps(now),
            age_s=now - self.begun,
            in_race=self.rival is not None,
        )


Speed = Callable[[Line, int], float]
"""The bytes a second of a connection, of which so many older ones are at work."""


def in_turn(*speeds_bps: float) -> Speed:
    """Give each connection that is opened the next speed: a new one may be better."""
    return lambda line, _: speeds_bps[line.key % len(speeds_bps)]


def by_place(*speeds_bps: float) -> Speed:
    """Give each place a speed that stays, whatever connection has it: a new one is no better."""
    return lambda line, _: speeds_bps[line.slot]


def one_after_the_other(speed_bps: float, at_once: int) -> Speed:
    """Let connections wait until older ones have ended."""
    return lambda _, older: speed_bps if older < at_once else 0.0


@dataclass(kw_only=True)
class Download:
    """A file that comes over `most` connections at a time, in exact time."""

    size_bytes: int
    speed: Speed
    most: int
    delay_s: float = 0.02
    now: float = 0.0
    fetched: float = 0.0
    lines: list[Line] = field(default_factory=list)
    done: ByteRanges = field(default_factory=ByteRanges)
    opened: list[Piece] = field(default_factory=list)
    remembered: tuple[float, float] = (0.0, 0.0)

    def run(self) -> Download:
        """Download all of it."""
        self._start(Piece(start=0, end=self.size_bytes))
        ticks = 0
        while not self.done.covers(0, self.size_bytes):
            ticks += 1
            self.now = ticks * TICK_S
            assert self.now < FOR_EVER_S, f"not over after {self.now} s: {self.lines}"
            has_ended = self._receive()
            if has_ended or ticks % STEER_EVERY_TICKS == 0:
                self._steer()
        return self

    def missing(self) -> list[tuple[int, int]]:
        """Return what nobody fetches."""
        taken = ByteRanges(self.done.ranges())
        for line in self.lines:
            taken.add(int(line.position), line.end)
        return taken.missing(0, self.size_bytes)

    def _receive(self) -> bool:
        has_ended = False
        for older, line in enumerate(tuple(self.lines)):
            if line not in self.lines:
                continue  # its rival has just brought all
            line.age_s = self.now - line.begun
            if line.age_s > self.delay_s:
                before = line.position
                line.position = min(line.end, before + TICK_S * self.speed(line, older))
                self.fetched += line.position - before
                self.done.add(line.start, int(line.position))
            line.marks = [*line.marks[-100:], (self.now, line.position)]
            if line.position >= line.end:
                has_ended = True
                self._close(line)
                if line.rival is not None:
                    self._close(line.rival)
        return has_ended

    def _close(self, line: Line) -> None:
        self.lines.remove(line)
        if line.rival is not None:
            line.rival.rival = None

    def _steer(self) -> None:
        while len(self.lines) < self.most and self._open():
            pass
        key = crawler(self._flows(), self._prospect())
        if key is not None:
            [crawling] = [line for line in self.lines if line.key == key]
            self._close(crawling)
            self._open()

    def _open(self) -> bool:
        flows = self._flows()
        gaps = self.missing()
        piece = next_piece(gaps, flows, self._prospect())
        if piece is None:
            assert not gaps, "what nobody fetches is always worth a connection"
            return False
        self._check(piece, gaps, flows)
        taker = self._start(piece)
        for line in self.lines:
            if line.key == piece.victim and piece.is_race:
                line.rival, taker.rival = taker, line
            elif line.key == piece.victim:
                line.end = piece.start
        self._check_owners()
        return True

    def _start(self, piece: Piece) -> Line:
        line = Line(
            key=len(self.opened),
            start=piece.start,
            position=piece.start,
            end=piece.end,
            begun=self.now,
            slot=min(set(range(self.most + 1)) - {line.slot for line in self.lines}),
            marks=[(self.now, piece.start)],
        )
        self.opened.append(piece)
        self.lines.append(line)
        return line

    def _check(self, piece: Piece, gaps: list[tuple[int, int]], flows: list[Flow]) -> None:
        assert 0 <= piece.start < piece.end <= self.size_bytes
        assert self.done.missing(piece.start, piece.end) != []
        if piece.victim is None:
            assert (piece.start, piece.end) in gaps
            return
        [victim] = [flow for flow in flows if flow.key == piece.victim]
        assert not victim.in_race, "two connections are enough for a race"
        assert piece.end == victim.end
        assert piece.start >= victim.position
        if piece.is_race:
            assert piece.start == victim.position
        else:
            assert piece.end - piece.start >= LEAST_PIECE_BYTES
            assert piece.start - victim.position >= LEAST_PIECE_BYTES

    def _check_owners(self) -> None:
        for before, after in pairwise(sorted(self.lines, key=lambda line: (int(line.position), line.end))):
            assert int(after.position) >= before.end or before.rival is after, "a byte has two connections"

    def _flows(self) -> list[Flow]:
        return [line.flow(self.now) for line in self.lines]

    def _prospect(self) -> Prospect:
        then, before_bps = self.remembered
        now_bps = usual_speed_bps(self._flows())
        usual_bps = max(now_bps, before_bps * 0.5 ** ((self.now - then) / FORGETTING_S))
        self.remembered = (self.now, usual_bps)
        return Prospect(speed_bps=usual_bps, delay_s=self.delay_s)


def pieces_worth(size_bytes: int, most: int) -> int:
    """Return how many pieces are few: each connection may halve what is left a number of times."""
    return int(2 * most * (2 + math.log2(max(2, size_bytes / LEAST_PIECE_BYTES))))
