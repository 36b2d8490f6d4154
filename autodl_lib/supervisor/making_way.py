"""Who has had no place for long gets one, though all are taken by downloads that may last for days.

Runs as: the supervisor.  Talks to: the pool, by way of the runner that owns it.
Places that become free go around fairly (scheduling/scheduler.py); this is for when none does. The newest download of
who has the most places, and several, is interrupted: it is back in the queue, keeps what it has brought where the
server lets it go on, and is no attempt more.
Invariants: nobody is left without a place by it; a user who waits gets one place so, and no other while they have it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from autodl_lib.contract.states import TaskEvent
from autodl_lib.contract.task import Uid
from autodl_lib.contract.worker_states import LeasePhase
from autodl_lib.supervisor.scheduling.user_limits import UserLimits
from autodl_lib.supervisor.workers.pool import Pool
from autodl_lib.supervisor.workers.worker_handle import Lease

LOOK_EVERY_S = 1.0
DETAIL = "another user's download had no place"

logger = logging.getLogger(__name__)


class MakingWay:
    """Looks, from time to time, while all places are taken."""

    def __init__(self, limits: UserLimits, waiting: Callable[[Pool], set[Uid]]) -> None:
        """`waiting` returns who has no place, and a task that could start now, were there one."""
        self._limits = limits
        self._waiting = waiting
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._since_mono: dict[Uid, float] = {}
        """Who waits without a place, and since when."""

    def all_are_taken(self, pool: Pool) -> None:
        """Look soon who waits for a place."""
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_EVERY_S, self._look, pool)

    def some_are_free(self) -> None:
        """Nobody waits for a place."""
        self._since_mono.clear()
        self.close()

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, pool: Pool) -> None:
        self._timer = self._loop.call_later(LOOK_EVERY_S, self._look, pool)
        now = self._loop.time()
        self._since_mono = {uid: self._since_mono.get(uid, now) for uid in self._waiting(pool)}
        for uid, since_mono in self._since_mono.items():
            patience_s = self._limits.of(uid).make_way_after_s
            if patience_s and now - since_mono >= patience_s:
                self._since_mono[uid] = now
                lease = self._newest_of_many(pool)
                if lease is not None:
                    words = "task %d makes way for another user, and goes on later"
                    logger.info(words, lease.task_id, extra={"event": "made_way", "task_id": lease.task_id})
                    lease.why = DETAIL
                    pool.halt(lease, TaskEvent.INTERRUPT)

    def _newest_of_many(self, pool: Pool) -> Lease | None:
        """Return the newest download of who has the most places for their weight; None where nobody has several."""
        running = [
            lease
            for lease in pool.leases.downloads()
            if lease.phase is LeasePhase.STARTED and lease.outcome is None and not pool.hanging.has(lease.task_id)
        ]
        places = Counter(lease.uid for lease in running)
        several = [uid for uid, number in places.items() if number > 1]
        if not several:
            return None
        most = max(several, key=lambda uid: places[uid] / self._limits.of(uid).weight)
        return max((lease for lease in running if lease.uid == most), key=lambda lease: lease.begun_mono)
