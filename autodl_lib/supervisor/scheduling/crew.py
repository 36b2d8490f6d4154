"""How many workers many small files are worth: as many as keep the processors busy, and no more.

Runs as: the supervisor.  Talks to: the kernel (/proc/stat).
A worker whose files take milliseconds is `quick`. Where servers are far away it waits most of the time, and more of
them bring more. Where the processors are what limits, each one more costs the others: smaller batches, and turns.
Invariants: never less than one worker for each processor, which is what small files begin with.
How it fails: without /proc/stat there is no limit.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from autodl_lib.contract.task import Uid

LOOK_EVERY_S = 0.2
NO_LIMIT = 1_000_000
_BUSY = 0.03
_IDLE = 0.12
"""Of the processors' time, what is idle: below the one there are too many workers, above the other too few, if that is
so twice running: it is not the start of some."""
_SHRINK = 0.6
_GROW = 0.5


class QuickOrNot(Protocol):
    """A worker that has work."""

    @property
    def key(self) -> str: ...

    @property
    def uid(self) -> Uid: ...

    @property
    def folder(self) -> str: ...

    @property
    def load(self) -> int: ...

    @property
    def is_quick(self) -> bool: ...


def resting(busy: Sequence[QuickOrNot], limit: int) -> set[str]:
    """Return the quick workers that get no more work, where there are more than `limit`.

    In each folder of a user, one goes on.
    """
    quick = sorted([worker for worker in busy if worker.is_quick], key=lambda worker: worker.load)
    left = Counter((worker.uid, worker.folder) for worker in quick)
    at_rest: set[str] = set()
    for worker in quick:
        place = worker.uid, worker.folder
        if len(quick) - len(at_rest) > limit and left[place] > 1:
            left[place] -= 1
            at_rest.add(worker.key)
    return at_rest


def idle_share() -> Callable[[], float]:
    """Return a function that says which part of all processors' time was idle since it was called last."""
    before = (0, 0)

    def look() -> float:
        nonlocal before
        with open("/proc/stat", "rb") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
        idle, total = ticks[3] + ticks[4], sum(ticks)
        share = (idle - before[0]) / max(1, total - before[1])
        before = (idle, total)
        return share

    return look


class Crew:
    """The number of quick workers that are kept busy."""

    def __init__(self, idle: Callable[[], float], cores: int | None = None) -> None:
        """`idle` says which part of the processors' time was idle since it was asked last."""
        self._idle = idle
        self._least = cores or len(os.sched_getaffinity(0))
        self._limit = float(self._least)
        self._looked_mono = 0.0
        self._was_idle = False

    def limit(self, quick: int, now: float) -> int:
        """Return how many quick workers are to have work, now that `quick` ones have some; `now` is monotonic."""
        if not quick:
            self._limit = float(self._least)
        elif now >= self._looked_mono + LOOK_EVERY_S:
            is_recent = now < self._looked_mono + 5 * LOOK_EVERY_S
            self._looked_mono = now
            self._look(quick, is_recent)
        return int(self._limit)

    def _look(self, quick: int, is_recent: bool) -> None:
        try:
            idle = self._idle()
        except (OSError, ValueError, IndexError):
            self._limit = float(NO_LIMIT)
            return
        was_idle, self._was_idle = self._was_idle, is_recent and idle > _IDLE
        if not is_recent:
            return
        if idle < _BUSY:
            self._limit = max(float(self._least), min(self._limit, quick) * _SHRINK)
        elif self._was_idle and was_idle and int(self._limit) <= quick:
            self._limit += max(1.0, self._limit * _GROW)
