"""Who is there: the pool's workers, those that are still starting, and what the scheduler sees of them.

Runs as: the supervisor.  Talks to: nobody; no I/O.
Invariants: a worker is starting or live, never both; one that leaves, or was killed, is given nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass

from autodl_lib.contract.task import Uid
from autodl_lib.contract.worker_messages import Discard
from autodl_lib.store.rows import TaskSpec
from autodl_lib.supervisor.scheduling.picture import WorkerView
from autodl_lib.supervisor.workers.worker_handle import QUICK_PACE_S, TURN_S, UNKNOWN_PACE_S, Lease, Worker, room_of


@dataclass(slots=True, kw_only=True)
class Coming:
    """A worker whose process is not there yet, and what it will be given to do, with the assignment of each."""

    key: str
    uid: Uid
    folder: str
    work: list[tuple[Lease, TaskSpec | Discard]]


class Roster:
    """All workers, by their keys."""

    def __init__(self, hosts_of: Callable[[str], Set[str]]) -> None:
        """`hosts_of` says at which hosts a worker has connections."""
        self.live: dict[str, Worker] = {}
        self.starting: dict[str, Coming] = {}
        self._hosts_of = hosts_of
        self._paces: dict[Uid, float] = {}

    @property
    def busy_num(self) -> int:
        """How many have work, or are starting for some."""
        return sum(1 for worker in self.live.values() if worker.leases) + len(self.starting)

    def busy_of(self, uid: Uid) -> int:
        """Return how many of them are a user's."""
        busy = sum(1 for worker in self.live.values() if worker.leases and worker.uid == uid)
        return busy + sum(1 for coming in self.starting.values() if coming.uid == uid)

    def is_useful(self, key: str) -> bool:
        """Return whether a worker is there, or about to be, and may be given work."""
        worker = self.live.get(key)
        return key in self.starting if worker is None else not worker.is_going

    def leaving_num(self) -> int:
        """Return how many are on their way out, but still there."""
        return sum(1 for worker in self.live.values() if worker.is_going)

    def freed_num(self) -> int:
        """Return how many of those have nothing left to do."""
        return sum(1 for worker in self.live.values() if worker.is_going and not worker.leases)

    def expected(self, uid: Uid) -> tuple[int, bool]:
        """Return the room that a new worker of a user is taken to have, and whether it is taken to be quick."""
        pace_s = self._paces.get(uid, UNKNOWN_PACE_S)
        return room_of(pace_s), pace_s <= QUICK_PACE_S

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
        views += [self._view_of_coming(coming) for coming in self.starting.values()]
        return tuple(views)

    def _view(self, worker: Worker) -> WorkerView:
        return WorkerView(
            key=worker.key,
            uid=worker.uid,
            load=len(worker.leases),
            room=worker.room,
            turn_room=worker.turn_room,
            hosts=self._hosts_of(worker.key),
            folder=worker.folder,
            is_quick=worker.is_quick,
            is_fresh=worker.is_fresh,
        )

    def _view_of_coming(self, coming: Coming) -> WorkerView:
        room, is_quick = self.expected(coming.uid)
        return WorkerView(
            key=coming.key,
            uid=coming.uid,
            load=len(coming.work),
            room=room,
            turn_room=room_of(self._paces.get(coming.uid, UNKNOWN_PACE_S), TURN_S),
            hosts=self._hosts_of(coming.key),
            folder=coming.folder,
            is_quick=is_quick,
            is_fresh=True,
        )
