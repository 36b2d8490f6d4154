"""Workers that can't be ended: they wait in the kernel, for a disk that hangs, say, where no signal gets through.

Runs as: the supervisor.  Talks to: the log.
Such a worker may still be about to write. So it keeps its tasks, and its folders are left alone; but its place goes to
others. It ends when what it waits for has come, and its tasks are tried again like those of any worker that is lost.
Known limits: what it was handed ahead waits with it, and so does what was cancelled meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.supervisor.workers.worker_handle import Worker

DEATH_TIMEOUT_S = 3.0
_MOST_OF_A_USER = 16
"""So many of a user's may hang in folders of their own before no more are started for that user."""

logger = logging.getLogger(__name__)


class Hanging:
    """The workers of a pool that were killed and are still there."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """`changed` hears that a place has become free."""
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._workers: dict[str, Worker] = {}

    def __contains__(self, worker_key: str) -> bool:
        return worker_key in self._workers

    def __len__(self) -> int:
        return len(self._workers)

    def idle_num(self) -> int:
        """Return how many of them have no tasks."""
        return sum(1 for worker in self._workers.values() if not worker.leases)

    def killed(self, worker: Worker) -> None:
        """See whether a worker that was just killed ends."""
        self._loop.call_later(DEATH_TIMEOUT_S, self._look, worker)

    def ended(self, worker: Worker) -> None:
        """A worker has ended after all, or as it should."""
        self._workers.pop(worker.key, None)

    def folders_of(self, uid: Uid) -> frozenset[str]:
        """Return the folders of a user's tasks that hang."""
        mine = [worker for worker in self._workers.values() if worker.uid == uid]
        return frozenset(lease.dir for worker in mine for lease in worker.leases.values())

    def are_too_many(self, uid: Uid) -> bool:
        """Tell whether so many of a user's workers hang that others would only follow them."""
        return sum(1 for worker in self._workers.values() if worker.uid == uid) >= _MOST_OF_A_USER

    def has(self, task_id: TaskId) -> bool:
        """Tell whether a task is with a worker that hangs."""
        return any(lease.task_id == task_id for worker in self._workers.values() for lease in worker.leases.values())

    def _look(self, worker: Worker) -> None:
        if worker.has_ended:
            return
        self._workers[worker.key] = worker
        logger.error(
            "worker %d of uid %d can't be ended: it waits in the kernel, as for a disk that does not answer;"
            " its place is given to others, and tasks of its folder wait",
            worker.pid,
            worker.uid,
            extra={"event": "worker_hangs", "uid": worker.uid},
        )
        self._changed()
