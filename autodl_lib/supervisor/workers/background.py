"""Work of the pool that goes on by itself: its defects are seen, and its end is waited for.

Runs as: the supervisor.  Talks to: the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

logger = logging.getLogger(__name__)


class Background:
    """What is under way."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, work: Awaitable[None]) -> None:
        """Begin some work."""

        async def run() -> None:
            try:
                await work
            except Exception:  # a defect here must be seen, not swallowed with the task
                logger.exception("internal error in the pool", extra={"event": "defect"})

        task = self._loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait(self, timeout_s: float) -> None:
        """Wait for the end of all that is under way."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
