"""What is done now and then: forgetting old tasks and counters, and ending a private daemon that is idle.

Runs as: the supervisor.  Talks to: the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial

from autodl_lib.contract.errors import AutodlError
from autodl_lib.contract.settings import HistorySection
from autodl_lib.contract.states import SETTLED
from autodl_lib.store.store import Store
from autodl_lib.store.transaction import Transaction

INTERVAL_S = 3600.0
CHANGES_PER_ROUND = 20_000
"""After so many changes it is time for a round, whatever the clock says: nobody fills the disk with history."""

PAUSE_S = 0.02
_BATCH = 500


class Housekeeper:
    """Forgets what is old or too much, in small transactions, once an hour and after many changes."""

    def __init__(self, store: Store, settings: HistorySection) -> None:
        self._store = store
        self._settings = settings
        self._task: asyncio.Task[None] | None = None
        self._due = asyncio.Event()
        self._changes = 0

    def changed(self, count: int) -> None:
        """So many changes were recorded."""
        self._changes += count
        if self._changes >= CHANGES_PER_ROUND:
            self._due.set()

    def configure(self, settings: HistorySection) -> None:
        """Obey new settings from the next round on."""
        self._settings = settings

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()

    async def _work(self) -> None:
        while True:
            self._changes = 0
            self._due.clear()
            with contextlib.suppress(AutodlError):
                await self._store.write(lambda transaction: transaction.forget_responses())
                await self._forget()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), INTERVAL_S)

    async def _forget(self) -> None:
        keep = self._settings
        before = time.time() - keep.keep_days * 86400
        await self._repeat(lambda transaction: transaction.forget_settled(before, _BATCH))
        for uid in self._store.counters.users_with(SETTLED):
            await self._repeat(partial(Transaction.forget_settled_of, uid=uid, keep=keep.keep_tasks, limit=_BATCH))
        for uid in self._store.read.owners_of_events():
            await self._repeat(partial(Transaction.forget_events, uid=uid, keep=keep.keep_events, limit=_BATCH))

    async def _repeat(self, forget: Callable[[Transaction], int]) -> None:
        while await self._store.write(forget):
            await asyncio.sleep(PAUSE_S)


class IdleExit:
    """Ends a private daemon after so long without work and without clients."""

    def __init__(self, timeout_s: float, is_idle: Callable[[], bool], end: Callable[[], None]) -> None:
        self._timeout_s = timeout_s
        self._is_idle = is_idle
        self._end = end
        self._timer: asyncio.TimerHandle | None = None

    def check(self) -> None:
        """Something changed: start or stop the clock."""
        if not self._is_idle():
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._timeout_s, self._ran_out)

    def _ran_out(self) -> None:
        self._timer = None
        if self._is_idle():
            self._end()
