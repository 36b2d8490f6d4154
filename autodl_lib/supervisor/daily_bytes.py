"""Who has taken from the network what they may in one day, from one 0:00 UTC to the next.

Runs as: the supervisor.  Talks to: the store's reader; the pool's live figures.
Invariants: what was taken is what the store counts for the day, and what running transfers have taken since they began.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.contract.worker_messages import Progress
from autodl_lib.store.reader import Reader
from autodl_lib.supervisor.scheduling.user_limits import UserLimits
from autodl_lib.supervisor.workers.worker_handle import Lease

DAY_S = 86400


class DailyBytes:
    """The accounts of the day."""

    def __init__(self, read: Reader, limits: UserLimits) -> None:
        self._read = read
        self._limits = limits

    def is_spent(self, uid: Uid, leases: Iterable[Lease], live: Mapping[TaskId, Progress]) -> bool:
        """Return whether a user has no bytes left today; `leases` are theirs, with `live` figures."""
        most = self._limits.of(uid).bytes_per_day
        if not most:
            return False
        taken = self._read.traffic_of_day(uid, int(time.time()) // DAY_S)
        for lease in leases:
            progress = live.get(lease.task_id)
            if progress is not None:
                taken += max(0, progress.bytes_done - lease.bytes_before)
        return taken >= most


def next_day_at(now: float) -> float:
    """Return the next 0:00 UTC, in epoch seconds."""
    return float((int(now) // DAY_S + 1) * DAY_S)
