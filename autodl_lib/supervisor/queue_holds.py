"""Which queues are held, until when, and when that ends.

Runs as: the supervisor, on the loop.  Talks to: nobody; who changes a hold has it on disk before.
Invariants: a hold ends by the wall clock, and is noticed to have ended within minutes of a clock that was set.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from autodl_lib.contract.task import Uid
from autodl_lib.supervisor.timer_delay import timer_delay

EVERYBODY = Uid(-1)
"""The uid that stands for all users' queues in a hold."""


class QueueHolds:
    """All of them; `on_change` hears of each that ends or begins."""

    def __init__(self, holds: dict[Uid, float | None], on_change: Callable[[], None]) -> None:
        """`holds`: the epoch seconds when each ends, None for until it is lifted."""
        self.clearing: Counter[Uid] = Counter()
        """Whose tasks are being dropped at this moment: none of theirs begins meanwhile."""
        self._until = holds
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._set_timer()

    def hold(self, uid: Uid, until: float | None) -> None:
        """Hold a user's queue, or everybody's, from now on."""
        self._until[uid] = until
        self._set_timer()
        self._on_change()

    def lift(self, uid: Uid) -> None:
        """Let a queue run again."""
        self._until.pop(uid, None)
        self._on_change()

    def held(self, uid: Uid) -> tuple[bool, float | None]:
        """Return whether a user's queue is held, by them or for everybody, and until when."""
        found = self._active(uid, time.time())
        if not found:
            return False, None
        return True, None if None in found else max(until for until in found if until is not None)

    def are_for_everybody(self) -> bool:
        """Tell whether all queues are held, which only an administrator can lift."""
        return EVERYBODY in self._until and bool(self._active(EVERYBODY, time.time()))

    def may_begin(self, uid: Uid, now: float) -> bool:
        """Return whether a user's tasks may begin: their queue is neither held nor being cleared."""
        return not self.clearing[uid] and not self._active(uid, now)

    def _active(self, uid: Uid, now: float) -> list[float | None]:
        ends = [self._until[key] for key in (uid, EVERYBODY) if key in self._until]
        return [until for until in ends if until is None or until > now]

    def _set_timer(self) -> None:
        """Say so when the next hold runs out, whoever's it is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = time.time()
        ends = [until for until in self._until.values() if until is not None and until > now]
        if ends:
            self._timer = self._loop.call_later(timer_delay(min(ends) - now), self._ran_out)

    def _ran_out(self) -> None:
        self._set_timer()
        self._on_change()
