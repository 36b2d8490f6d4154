"""What workers report comes in here: checked, taken into the ledgers, passed on to be recorded.

Runs as: the supervisor.  Talks to: the pool that owns it, Outcomes by the listener.
A flood is checked in pieces, and clients' turns come in between; it is recorded as one.
Invariants: a worker's reports are taken in the order in which it made them, also those that were quicker than the news
of its start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Protocol

from autodl_lib.contract.worker_messages import Progress
from autodl_lib.supervisor.workers.admission import Admitted, admit
from autodl_lib.supervisor.workers.allotments import Allotments, Orders
from autodl_lib.supervisor.workers.leases import Leases
from autodl_lib.supervisor.workers.listener import Listener
from autodl_lib.supervisor.workers.roster import Roster
from autodl_lib.supervisor.workers.worker_handle import Worker

PIECE = 32
"""So many reports are checked in one turn of the loop, a millisecond or two."""

_COMMIT_S = 1.0
_MARK_OF_A_REPORT = '"type"'
_LENGTH_OF_A_REPORT = 2048
"""What is longer counts for several, whatever it says."""


class Superior(Protocol):
    """What of the pool is needed here."""

    roster: Roster
    leases: Leases
    allotments: Allotments

    def send(self, orders: Orders) -> None:
        """Send orders to workers."""

    def retire(self, worker_key: str) -> None:
        """Let a worker go."""

    def distrust(self, worker: Worker, why: str) -> None:
        """Kill a worker that said what it may not."""


class Reception:
    """One for all workers of a pool."""

    def __init__(self, pool: Superior, listener: Listener) -> None:
        self._pool = pool
        self._listener = listener
        self._early: dict[str, list[str]] = {}
        self._waits_since_mono: list[float] = []

    def is_held_up(self) -> bool:
        """Tell whether reports wait for the queue's disk for longer than a commit takes: none is read meanwhile."""
        return bool(self._waits_since_mono) and time.monotonic() > min(self._waits_since_mono) + _COMMIT_S

    async def take(self, texts: list[str]) -> None:
        """Check what was drained, piece by piece; return when it is on disk."""
        reports: list[Admitted] = []
        for number, piece in enumerate(_pieces(texts)):
            if number:
                await asyncio.sleep(0)
            reports += self._check(piece)
        await self._pass_on(reports)

    async def take_early(self, worker_key: str) -> None:
        """Check what a worker said before the news of its start, all of it before what it has said since."""
        await self._pass_on(self._check(self._early.pop(worker_key, [])))

    def forget(self, worker_key: str) -> None:
        """A worker did not start after all."""
        self._early.pop(worker_key, None)

    async def _pass_on(self, reports: list[Admitted]) -> None:
        if reports:
            since_mono = time.monotonic()
            self._waits_since_mono.append(since_mono)
            try:
                await self._listener.reported(reports)
            finally:
                self._waits_since_mono.remove(since_mono)
        self._listener.changed()

    def _check(self, texts: list[str]) -> list[Admitted]:
        pool = self._pool
        admission = admit(pool.roster.live, texts)
        for key, text in admission.unknown:
            if key in pool.roster.starting:  # it was quicker than the news that it has started
                self._early.setdefault(key, []).append(text)
        for worker, why in admission.distrusted:
            pool.distrust(worker, why)
        for worker in dict.fromkeys(item.worker for item in admission.reports):
            pool.roster.learn_pace(worker)
        for item in admission.reports:
            if isinstance(item.report, Progress):
                pool.leases.live[item.lease.task_id] = item.report
                continue
            orders = pool.allotments.take(item)
            if orders is None:
                pool.distrust(item.worker, "yielded without a grant, or not to it")
            elif orders:
                pool.send(orders)
        for worker in {item.worker for item in admission.reports if item.worker.is_useless}:
            pool.retire(worker.key)
        return admission.reports


def _pieces(texts: list[str]) -> Iterator[list[str]]:
    """Split texts, by how many reports are in them and how long they are; a text stays whole."""
    piece: list[str] = []
    count = 0
    for text in texts:
        piece.append(text)
        count += max(text.count(_MARK_OF_A_REPORT), len(text) // _LENGTH_OF_A_REPORT)
        if count >= PIECE:
            yield piece
            piece, count = [], 0
    if piece:
        yield piece
