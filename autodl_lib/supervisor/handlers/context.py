"""What a handler has to work with.

Runs as: the supervisor.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from autodl_lib.contract.errors import InvalidParams, NoSuchTask, NotAllowed, QueueFull
from autodl_lib.contract.replies.tasks import Saved
from autodl_lib.contract.settings import Settings
from autodl_lib.contract.states import TaskState
from autodl_lib.contract.task import Task, TaskId, Uid
from autodl_lib.privilege.accounts import find_account_by_name
from autodl_lib.store.store import Store
from autodl_lib.supervisor.clients.access import Caller
from autodl_lib.supervisor.clients.fair_turns import FairTurns, Pace
from autodl_lib.supervisor.clients.watchers import Subscription, Watchers
from autodl_lib.supervisor.runner import Runner
from autodl_lib.supervisor.scheduling.rate_limits import RateLimits
from autodl_lib.supervisor.scheduling.user_limits import UserLimits
from autodl_lib.supervisor.workers.pool import Pool

_WAITING_STATES = (TaskState.ENQUEUED, TaskState.RETRYING, TaskState.PAUSED)

_PIECE = 1000
"""Tasks that are looked up in one go, a millisecond or two."""


@dataclass(slots=True)
class Service:
    """The daemon's parts, as handlers see them."""

    store: Store
    runner: Runner
    pool: Pool
    settings: Settings
    limits: RateLimits
    users: UserLimits
    watchers: Watchers = field(init=False)
    adding: Counter[Uid] = field(default_factory=Counter)
    """How many tasks each user is having queued at this moment."""
    bulk: dict[Uid, asyncio.Lock] = field(default_factory=dict)
    """Who is having many queued: their adds go one after the other, so that others' changes get in between."""
    looking_up: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Accounts are looked up by name one at a time: where that takes long, whoever asks much keeps one thread busy."""
    turns: FairTurns = field(init=False)

    def __post_init__(self) -> None:
        self.turns = FairTurns()
        self.watchers = Watchers(self.views, self.pool.leases.transferring, self.store.read.page)
        self.store.listen(self.watchers.committed)

    @contextmanager
    def room_for(self, uid: Uid, number: int) -> Iterator[None]:
        """Keep room in a user's queue for so many tasks more, while they are being queued.

        Raises: QueueFull, StoreUnusable.
        """
        if number:
            self.store.check_room()
        queued = sum(self.store.counters.count(uid, state) for state in _WAITING_STATES) + self.adding[uid]
        most = self.users.of(uid).queued
        if number and queued + number > most:
            way_out = "wait, or clear some" if number <= most else "add fewer"
            words = f"you have {queued} tasks queued, and {most} is the most, so {number} more do not fit"
            raise QueueFull(f"{words}: {way_out}")
        self.adding[uid] += number
        try:
            yield
        finally:
            self.adding[uid] -= number

    def view(self, task_id: TaskId, viewer: Uid | None = None) -> Task | None:
        """Return a task as it is now, with the live figures of its transfer; None where `viewer` may not see it."""
        task = self.store.read.task(task_id, viewer)
        return None if task is None else self.with_live_figures(task)

    def views(self, task_ids: Sequence[TaskId]) -> list[Task]:
        """Return tasks as they are now, as `view` does; those that are gone are left out."""
        return [self.with_live_figures(task) for task in self.store.read.tasks(task_ids)]

    def with_live_figures(self, task: Task) -> Task:
        """Return the task with speed, progress and time left of its running transfer."""
        live = self.pool.leases.live.get(task.id)
        if live is None or task.state is not TaskState.DOWNLOADING:
            return task
        total = live.bytes_total if live.bytes_total is not None else task.bytes_total
        eta_s = None
        if total is not None and live.speed_bps > 0:
            eta_s = max(0, total - live.bytes_done) // live.speed_bps
        return dataclasses.replace(
            task,
            bytes_done=live.bytes_done,
            bytes_total=total,
            speed_bps=live.speed_bps,
            eta_s=eta_s,
            connections=live.connections,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request's surroundings: who asks, of what service, and how to stream to them."""

    service: Service
    caller: Caller
    pace: Pace
    subscribe: Callable[[Subscription], None]
    """Raises InvalidParams, Busy."""
    unsubscribe: Callable[[Subscription], None]
    send_tasks: Callable[[list[Task]], None]
    send_saved: Callable[[Saved], None]
    writable: Callable[[], bool]

    def visible(self, task_id: TaskId) -> Task:
        """Return a task that exists for the caller.

        Raises: NoSuchTask.
        """
        task = self.service.view(task_id, self.caller.sees)
        if task is None:
            raise NoSuchTask(f"no such task: {task_id}")
        return task

    async def visible_states(self, task_ids: Sequence[int]) -> dict[TaskId, TaskState]:
        """Return the states of tasks that all exist for the caller, each once, in their order.

        Raises: NoSuchTask.
        """
        states: dict[TaskId, TaskState] = {}
        numbers = [TaskId(task_id) for task_id in dict.fromkeys(task_ids)]
        for start in range(0, len(numbers), _PIECE):
            if start:
                await self.pace.next()
            piece = numbers[start : start + _PIECE]
            known = self.service.store.read.states(piece, self.caller.sees)
            for task_id in piece:
                if task_id not in known:
                    raise NoSuchTask(f"no such task: {task_id}")
                states[task_id] = known[task_id]
        return states

    def log_change(self, action: str, ids: Sequence[int] = (), detail: str = "") -> None:
        """Log what the caller has changed."""
        self.service.runner.audit.changed(self.caller.actor, action, ids, detail)

    async def uid_of(self, user: str) -> Uid:
        """Return the uid of a user that an administrator names.

        Raises: NotAllowed, InvalidParams.
        """
        if not self.caller.is_admin:
            raise NotAllowed("--user is for administrators: root and the members of the admin group")
        account = await asyncio.to_thread(find_account_by_name, user)
        if account is None:
            raise InvalidParams(f"there is no user {user!r} on this machine")
        return account.uid

    def scope(self, everybody: bool) -> Uid | None:
        """Return whose tasks a request means: the caller's, or (None) everybody's.

        Raises: NotAllowed.
        """
        if not everybody:
            return self.caller.uid
        if not self.caller.is_admin:
            raise NotAllowed("--all is for administrators: root and the members of the admin group")
        return None
