"""Who is there: the pool's workers, those that are still starting, and what the scheduler sees of them.

Runs as: the supervisor.  Talks to: nobody; no I/O.
Invariants: a worker is starting or live, never both; one that leaves, or was killed, is given nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Set

from autodl_lib.contract.task import Uid
from autodl_lib.supervisor.scheduling.picture import WorkerView
from autodl_lib.supervisor.workers.worker_handle import QUICK_PACE_S, UNKNOWN_PACE_S, Lease, Worker


class Roster:
    """All workers, by their keys."""

    def __init__(self, hosts_of: Callable[[str], Set[str]]) -> None:
        """`hosts_of` says at which hosts a worker has connections."""
        self.live: dict[str, Worker] = {}
        self.starting: dict[str, Lease] = {}
        """Those whose process is not there yet, with the assignment that they are started for."""
        self._hosts_of = hosts_of
        self._paces: dict[Uid, float] = {}

    @property
    def busy_num(self) -> int:
        """How many have work, or are starting for some."""
        return sum(1 for worker in self.live.values() if worker.leases) + len(self.starting)

    def busy_of(self, uid: Uid) -> int:
        """Return how many of them are a user's."""
        busy = sum(1 for worker in self.live.values() if worker.leases and worker.uid == uid)
        return busy + sum(1 for lease in self.starting.values() if lease.uid == uid)

    def is_useful(self, key: str) -> bool:
        """Return whether a worker has started and may be given work."""
        worker = self.live.get(key)
        return worker is not None and not worker.is_going

    def leaving_num(self) -> int:
        """Return how many are on their way out, but still there."""
        return sum(1 for worker in self.live.values() if worker.is_going)

    def add(self, worker: Worker) -> None:
        """Take in a worker that has started; until it shows its own pace, it is taken to have its user's last one."""
        worker.pace_s = self._paces.get(worker.uid, UNKNOWN_PACE_S)
        del self.starting[worker.key]
        self.live[worker.key] = worker

    def learn_pace(self, worker: Worker) -> None:
        """Remember a worker's pace for those of its user that come."""
        self._paces[worker.uid] = worker.pace_s

    def views(self) -> tuple[WorkerView, ...]:
        """Return those that can take work, and those still starting."""
        views = [self._view(worker) for worker in self.live.values() if not worker.is_going]
        views += [self._view_of_coming(key, lease) for key, lease in self.starting.items()]
        return tuple(views)

    def _view(self, worker: Worker) -> WorkerView:
        return WorkerView(
            key=worker.key,
            uid=worker.uid,
            load=len(worker.leases),
            room=worker.room,
            hosts=self._hosts_of(worker.key),
            folder=worker.folder,
            is_quick=worker.is_quick,
            is_fresh=worker.is_fresh,
        )

    def _view_of_coming(self, key: str, lease: Lease) -> WorkerView:
        return WorkerView(
            key=key,
            uid=lease.uid,
            load=1,
            room=1,
            hosts=self._hosts_of(key),
            folder=lease.folder,
            is_quick=self._paces.get(lease.uid, UNKNOWN_PACE_S) <= QUICK_PACE_S,
            is_fresh=True,
        )
