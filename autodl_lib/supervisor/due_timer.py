"""Queues retrying tasks again when their time has come, by a wall clock that may be set at any moment.

Runs as: the supervisor, on the loop.  Talks to: the store.
A task's time is kept as an epoch second, so that it outlives the daemon. When the clock is set back, by however
little, that second is further away than anybody meant: every retrying task is due then.
How it fails: while the queue can't be written, it is tried again.
"""

from __future__ import annotations

import asyncio
import time

from autodl_lib.contract.settings import RetrySection
from autodl_lib.store.store import Store
from autodl_lib.supervisor.scheduling.retry import MAX_RETRY_AFTER_S
from autodl_lib.supervisor.timer_delay import timer_delay

_BATCH = 1000
_STORE_RETRY_S = 2.0
_STEP_S = 2.0
"""The two clocks part by less than this between two looks, unless one is set."""


class DueTimer:
    """One timer, for the task that is due next; `set` it whenever a task begins to wait."""

    def __init__(self, store: Store, settings: RetrySection) -> None:
        self.settings = settings
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Future[int] | None = None
        self._ahead_s = _wall_ahead_s()
        self._all_are_due = False
        self._is_closed = False

    def close(self) -> None:
        """Wake up no more: the queue is about to be closed."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def set(self) -> None:
        """Wake up when the next task is due; at once when the clock has been set back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_closed:
            return
        due = self._store.read.next_due()
        if due is not None:
            delay_s = 0.0 if self._was_set_back() else timer_delay(due - time.time())
            self._timer = self._loop.call_later(delay_s, self._enqueue)

    def _was_set_back(self) -> bool:
        before, self._ahead_s = self._ahead_s, _wall_ahead_s()
        self._all_are_due |= self._ahead_s < before - _STEP_S
        return self._all_are_due

    def _enqueue(self) -> None:
        self._timer = None
        if self._task is not None:
            return
        # What is due later than anything can be was postponed under a clock that was wrong before we began.
        all_are_due, self._all_are_due = self._was_set_back(), False
        longest_s = 0.0 if all_are_due else max(MAX_RETRY_AFTER_S, self.settings.max_delay_s) * 1.5
        self._task = self._store.write(
            lambda transaction: transaction.enqueue_due(time.time(), time.time() + longest_s, _BATCH)
        )
        self._task.add_done_callback(lambda done: self._done(done, all_are_due))

    def _done(self, done: asyncio.Future[int], all_were_due: bool) -> None:
        self._task = None
        if done.cancelled() or done.exception() is not None:
            self._all_are_due |= all_were_due
            if not self._is_closed:
                self._timer = self._loop.call_later(_STORE_RETRY_S, self._enqueue)
            return
        self._all_are_due |= all_were_due and done.result() == _BATCH
        self.set()


def _wall_ahead_s() -> float:
    return time.time() - time.monotonic()
