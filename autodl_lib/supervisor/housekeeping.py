"""What is done now and then: forgetting old tasks and counters, and ending a private daemon that is idle.

Runs as: the supervisor.  Talks to: the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from autodl_lib.contract.errors import AutodlError
from autodl_lib.contract.settings import HistorySection
from autodl_lib.store.store import Store

INTERVAL_S = 3600.0
_BATCH = 500


class Housekeeper:
    """Forgets what is old, in small transactions, once an hour."""

    def __init__(self, store: Store, settings: HistorySection) -> None:
        self._store = store
        self._settings = settings
        self._task: asyncio.Task[None] | None = None

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
            with contextlib.suppress(AutodlError):
                await self._store.write(lambda transaction: transaction.forget_responses())
                before = time.time() - self._settings.keep_days * 86400
                while await self._store.write(lambda transaction, at=before: transaction.forget_settled(at, _BATCH)):  # type: ignore[misc]
                    await asyncio.sleep(0.05)
            await asyncio.sleep(INTERVAL_S)


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
