"""The look after workers that have work, now and then: where there is none, the daemon sleeps.

Runs as: the supervisor.  Talks to: nobody itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

CHECK_INTERVAL_S = 15.0


class Watch:
    """Looks as long as there is work."""

    def __init__(self, look: Callable[[], Awaitable[bool]], interval_s: Callable[[], float]) -> None:
        """`look` returns whether there is any work left; `interval_s` says how long to wait at most."""
        self._look = look
        self._interval_s = interval_s
        self._working = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    def work_is_given(self) -> None:
        """There is work again."""
        self._working.set()

    async def _run(self) -> None:
        while True:
            await self._working.wait()
            await asyncio.sleep(min(CHECK_INTERVAL_S, self._interval_s()))
            if not await self._look():
                self._working.clear()
