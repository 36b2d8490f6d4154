"""What the scheduler sees of the queue: who has tasks waiting that may run, and which come first.

Runs as: the supervisor.  Talks to: the store's reader, the pool (what it has room for).
Invariants: what is read is bounded by what can be handed out; with tasks of several folders, by FOR_OTHER_FOLDERS more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from autodl_lib.contract.states import TaskState
from autodl_lib.contract.task import Uid
from autodl_lib.store.rows import Moved
from autodl_lib.store.store import Store
from autodl_lib.supervisor.scheduling.host_holds import HostHolds
from autodl_lib.supervisor.scheduling.host_ledger import user_key
from autodl_lib.supervisor.scheduling.next_tasks import Closed, Need, next_tasks
from autodl_lib.supervisor.scheduling.picture import UserQueue, WaitingTask, WorkerView
from autodl_lib.supervisor.scheduling.queue_heads import QueueHeads
from autodl_lib.supervisor.scheduling.strides import Strides
from autodl_lib.supervisor.scheduling.user_limits import UserLimits
from autodl_lib.supervisor.workers.pool import Pool
from autodl_lib.supervisor.workers.worker_handle import MAX_ROOM

AHEAD_AT_ONCE = 256
"""So many tasks of a user are handed out ahead in one plan, some milliseconds; the next one goes on."""
_AHEAD_OF_A_USER = 1500
_FOR_OTHER_FOLDERS = 2000
"""So many tasks more of a user are looked at where the first ones are of folders without a worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """What there is to give: `slots` that are free, of `slots_num`; and whether one more quick worker is worth it."""

    slots: int
    slots_num: int
    takes_quick: bool


class QueuePicture:
    """Draws it, again and again."""

    def __init__(self, store: Store, limits: UserLimits, strides: Strides, host_holds: HostHolds) -> None:
        self._store = store
        self._limits = limits
        self._strides = strides
        self._host_holds = host_holds
        self._heads = QueueHeads(store.read)

    def take(self, moved: Iterable[Moved]) -> None:
        """Take over what a commit has done."""
        self._heads.take(moved)

    def forget(self, uids: Iterable[Uid] | None = None) -> None:
        """Something has happened to tasks of these users, or of somebody."""
        self._heads.forget(uids)

    def draw(
        self, pool: Pool, views: tuple[WorkerView, ...], free: Free, may_run: Callable[[Uid], bool]
    ) -> tuple[UserQueue, ...]:
        """Return the users with tasks that may run, and of each the next ones."""
        rooms: Counter[Uid] = Counter()
        places: defaultdict[Uid, set[str]] = defaultdict(set)
        hosts: defaultdict[Uid, set[str]] = defaultdict(set)
        for view in views:
            places[view.uid].add(view.folder)
            rooms[view.uid] += max(0, view.room - max(1, view.load))
        if free.slots + rooms.total() == 0:
            return ()
        leased = pool.leases.tasks()
        full = {host for host, room in pool.allotments.hosts.room().items() if room <= 0}
        if full:
            for view in views:
                hosts[view.uid].update(view.hosts)
        users = []
        for uid in self._store.counters.users_with([TaskState.ENQUEUED]):
            if not may_run(uid):
                continue
            leased_of_user = pool.leases.count_of(uid)
            ahead = max(0, min(rooms[uid], AHEAD_AT_ONCE, _AHEAD_OF_A_USER - leased_of_user))
            # Of who can be given nothing now, one task says that they wait.
            tasks = max(1, free.slots + ahead)
            if free.slots and free.takes_quick and pool.roster.expected(uid)[1]:
                tasks += MAX_ROOM  # are there more small files than workers would have room for?
            need = Need(tasks=tasks, slots=free.slots, leased=leased, leased_by_user=leased_of_user)
            hanging = pool.hanging.folders_of(uid)
            closed = Closed(held=self._host_holds.of(uid), full=full, at=hosts[uid], folders=hanging)
            waiting = next_tasks(self._heads, uid, need, closed)
            if pool.confines and places[uid] and any(folder not in places[uid] for _, _, folder in waiting):
                # Not all can go to the workers that are there: see which others could.
                need = replace(need, tasks=tasks + _FOR_OTHER_FOLDERS)
                waiting = next_tasks(self._heads, uid, need, closed)
            if waiting:
                users.append(self._queue_of(uid, waiting, pool, (free.slots_num, len(waiting) >= need.tasks)))
        return tuple(users)

    def _queue_of(self, uid: Uid, waiting: tuple[WaitingTask, ...], pool: Pool, known: tuple[int, bool]) -> UserQueue:
        limits = self._limits.of(uid)
        turn = self._strides.turn_of(uid)
        key = user_key(uid)
        hosts = pool.allotments.hosts
        hosts.set_user_limit(key, limits.connections)
        slots_num, has_more = known
        room, is_quick = pool.roster.expected(uid)
        return UserQueue(
            uid=uid,
            waiting=waiting if pool.confines else tuple([(task_id, host, "") for task_id, host, _ in waiting]),
            served=turn.served_pass,
            last=turn.last,
            weight=limits.weight,
            running_limit=limits.running or slots_num,
            connections=limits.connections - hosts.used(key) if limits.connections else None,
            key=key,
            has_more=has_more,
            room=room,
            is_quick=is_quick,
        )
