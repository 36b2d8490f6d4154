"""Which worker has which task, and how far each of them is.

Runs as: the supervisor.  Talks to: nobody; no I/O.
Invariants: a task has one lease at most; one that has ended is not mistaken for that of the same task now.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.contract.worker_messages import Progress
from autodl_lib.contract.worker_states import LeasePhase
from autodl_lib.store.rows import TaskSpec
from autodl_lib.supervisor.workers.worker_handle import Lease, Worker

_MOST_LOST = 100_000


class Leases:
    """All leases of the pool."""

    def __init__(self) -> None:
        self.live: dict[TaskId, Progress] = {}
        """The last figures of the tasks that report any."""
        self._held: dict[TaskId, tuple[Worker | None, Lease]] = {}
        self._of_user: Counter[Uid] = Counter()
        self._lost: set[TaskId] = set()
        self._begun_at = time.time()

    def __len__(self) -> int:
        return len(self._held)

    def put(self, lease: Lease, worker: Worker | None) -> None:
        """Take up a lease; None: its worker is still starting."""
        if lease.task_id not in self._held:
            self._of_user[lease.uid] += 1
        self._held[lease.task_id] = (worker, lease)

    def drop(self, lease: Lease) -> Worker | None:
        """Forget a lease; return the worker that had it, None when it was forgotten before."""
        worker, held = self._held.get(lease.task_id, (None, None))
        if held is not lease:
            return None  # ended before, and the task has been handed out anew
        del self._held[lease.task_id]
        self._of_user[lease.uid] -= 1
        if not self._of_user[lease.uid]:
            del self._of_user[lease.uid]
        self.live.pop(lease.task_id, None)
        return worker

    def lose(self, leases: Iterable[Lease]) -> None:
        """Remember that workers were lost with these."""
        if len(self._lost) > _MOST_LOST:
            self._lost.clear()
        self._lost.update(lease.task_id for lease in leases)

    def may_be_again(self, spec: TaskSpec) -> bool:
        """Tell whether an earlier attempt may have left something that nobody reported: an earlier daemon's, too."""
        return spec.streak > 0 or spec.created_at < self._begun_at or spec.id in self._lost

    def worker_of(self, lease: Lease) -> Worker | None:
        """Return the worker that has a lease; None: it is still starting, or the lease has ended."""
        worker, held = self._held.get(lease.task_id, (None, None))
        return worker if held is lease else None

    def tasks(self) -> set[TaskId]:
        """Return the tasks that workers have."""
        return set(self._held)

    def held_num(self) -> int:
        """Return how many tasks workers have."""
        return len(self._held)

    def transferring(self) -> list[TaskId]:
        """Return the tasks whose bytes are flowing: their figures move."""
        return [task_id for task_id, (_, lease) in self._held.items() if lease.phase is LeasePhase.STARTED]

    def of_task(self, task_id: TaskId) -> Lease | None:
        """Return a task's lease, where a worker has it for download (not for removing what is left of it)."""
        held = self._held.get(task_id)
        return held[1] if held and held[1].phase is not LeasePhase.DISCARDING else None

    def downloads(self) -> list[Lease]:
        """Return all leases but those for removing what is left of a task."""
        return [lease for _, lease in self._held.values() if lease.phase is not LeasePhase.DISCARDING]

    def of_user(self, uid: Uid) -> list[Lease]:
        """Return a user's leases for download."""
        return [lease for lease in self.downloads() if lease.uid == uid]

    def count_of(self, uid: Uid) -> int:
        """Return how many tasks of a user are with workers."""
        return self._of_user[uid]

    def speed_of(self, task_id: TaskId) -> int | None:
        """Return a task's speed in bytes a second, None as long as none was reported."""
        progress = self.live.get(task_id)
        return progress.speed_bps if progress else None
