"""Keeps the pool full: asks the scheduler whenever something has changed, and does what it says.

Runs as: the supervisor.  Talks to: the store (reads), the scheduler, the pool, the outcomes.
Invariants: no polling; it runs when work, a slot, a setting or a hold changed, and when a retry is due.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import assert_never

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.settings import Settings
from autodl_lib.contract.states import TaskEvent, TaskState
from autodl_lib.contract.task import Uid
from autodl_lib.contract.worker_messages import Failed, Finished
from autodl_lib.contract.worker_states import LeasePhase
from autodl_lib.store.rows import Moved, TaskSpec
from autodl_lib.store.store import Store
from autodl_lib.supervisor.audit import AuditLog
from autodl_lib.supervisor.daily_bytes import DailyBytes, next_day_at
from autodl_lib.supervisor.due_timer import DueTimer
from autodl_lib.supervisor.leftovers import remove_leftovers
from autodl_lib.supervisor.outcomes import Outcomes
from autodl_lib.supervisor.queue_picture import AHEAD_AT_ONCE, Free, QueuePicture
from autodl_lib.supervisor.scheduling.crew import Crew, idle_share
from autodl_lib.supervisor.scheduling.host_holds import HostHolds
from autodl_lib.supervisor.scheduling.picture import Action, AssignTask, MakeRoom, RetireWorker, Snapshot, SpawnWorker
from autodl_lib.supervisor.scheduling.scheduler import plan
from autodl_lib.supervisor.scheduling.strides import Strides
from autodl_lib.supervisor.scheduling.user_limits import UserLimits
from autodl_lib.supervisor.timer_delay import timer_delay
from autodl_lib.supervisor.workers.admission import Admitted
from autodl_lib.supervisor.workers.losses import Loss
from autodl_lib.supervisor.workers.pool import Pool
from autodl_lib.supervisor.workers.worker_handle import Lease

EVERYBODY = Uid(-1)
"""The uid that stands for all users' queues in a hold."""

_DUE_BATCH = 1000
_PLAN_EVERY_S = 0.01
_PLAN_LEAST_OFTEN_S = 0.05
_AT_ONCE = 64
"""So many tasks are handed out in one turn of the loop, some milliseconds: clients' turns come in between."""
_PLAN_SHARE = 0.1
_PLAN_AHEAD_SHARE = 0.04
"""Of the time that planning may take in a flood of changes: the more a plan costs, the more changes it is for. Plans
that only hand out more ahead, to workers that have some, are for still more."""

_INTERRUPTIBLE = frozenset({LeasePhase.ASSIGNED, LeasePhase.STARTED})

_SET_ASIDE = {
    TaskState.PAUSED: TaskEvent.PAUSE,
    TaskState.CANCELLED: TaskEvent.CANCEL,
    TaskState.CLEARED: TaskEvent.CLEAR,
}

logger = logging.getLogger(__name__)


class Runner:
    """The pool's listener, and the one who plans."""

    def __init__(self, store: Store, settings: Settings, max_tasks_num: int, users: UserLimits) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._outcomes = Outcomes(store, settings.retry)
        self._settings = settings
        self._users_limits = users
        self._strides = Strides()
        self._crew = Crew(idle_share())
        self.audit = AuditLog()
        self.daily_bytes = DailyBytes(store.read, users)
        self._planned: asyncio.Handle | None = None
        self._rest: asyncio.Handle | None = None
        self._planned_mono = 0.0
        self._plan_pause_s = _PLAN_EVERY_S
        self._due = DueTimer(store, settings.retry)
        self._hold_timer: asyncio.TimerHandle | None = None
        self._network_task: asyncio.Future[int] | None = None
        self._leftovers = True
        self.max_tasks_num = max_tasks_num
        self.holds = store.read.holds()
        self.clearing: Counter[Uid] = Counter()
        """Whose tasks are being dropped at this moment: none of theirs begins meanwhile."""
        self.host_holds = HostHolds()
        self._picture = QueuePicture(store, users, self._strides, self.host_holds)
        self._host_timer: asyncio.TimerHandle | None = None
        self._day_timer: asyncio.TimerHandle | None = None
        self.pool: Pool | None = None
        store.listen(self._committed)

    # --- what others call ---

    def attach(self, pool: Pool) -> None:
        """Begin to fill a pool that has started."""
        self.pool = pool
        pool.allotments.held_for = self.host_holds.of
        self._due.set()
        self._set_hold_timer()
        self.changed()

    def configure(self, settings: Settings) -> None:
        """Obey new settings."""
        self._settings = settings
        self._outcomes.retry = self._due.settings = settings.retry
        self.changed()

    def changed(self) -> None:
        """Plan soon: something has changed. In a flood of changes, one plan is for many of them."""
        if self._planned is None and self._rest is None:
            self._planned = self._loop.call_at(self._planned_mono + self._plan_pause_s, self._plan_soon)

    def hold(self, uid: Uid, until: float | None) -> None:
        """Hold a user's queue, or everybody's, from now on (it is on disk already)."""
        self.holds[uid] = until
        self._set_hold_timer()
        self.changed()

    def lift_hold(self, uid: Uid) -> None:
        """Let a queue run again."""
        self.holds.pop(uid, None)
        self.changed()

    def held(self, uid: Uid) -> tuple[bool, float | None]:
        """Return whether a user's queue is held, by them or for everybody, and until when."""
        now = time.time()
        found = [until for key in (uid, EVERYBODY) if key in self.holds and _active(until := self.holds[key], now)]
        if not found:
            return False, None
        return True, None if None in found else max(until for until in found if until is not None)

    def network_came(self) -> None:
        """The machine's network has changed: tasks that wait for it are due."""
        if self._network_task is None:
            self._network_task = self._store.write(lambda transaction: transaction.enqueue_network_down(_DUE_BATCH))
            self._network_task.add_done_callback(self._network_done)

    def _network_done(self, done: asyncio.Future[int]) -> None:
        self._network_task = None
        if not done.cancelled() and done.exception() is None and done.result():
            self.network_came()

    def set_max_tasks(self, number: int) -> None:
        """Change how many tasks may run at once; running ones beyond it go on to their end."""
        self.max_tasks_num = number
        self.changed()

    # --- what the pool tells ---

    async def reported(self, batch: list[Admitted]) -> None:
        """Record reports, then do what follows from them."""
        for item in batch:
            if isinstance(item.report, Failed) and item.report.retry_after_s is not None:
                self._leave_alone(item.lease, item.report)
        recorded = await self._outcomes.record(batch)
        if self.pool is None:
            return
        for lease in recorded.ended:
            self.pool.end_lease(lease)
        self.pool.publish(recorded.publish)
        for worker, why in recorded.refused:
            self.pool.distrust(worker, why)
        for item in batch:
            if isinstance(item.report, Finished) and item.lease.phase is LeasePhase.ENDED:
                self.audit.finished(item.lease.uid, item.lease.task_id, item.report)
        for uid in {item.lease.uid for item in batch}:
            if self.is_spent(uid):
                self._interrupt(uid)

    def is_spent(self, uid: Uid) -> bool:
        """Return whether a user has taken all the bytes of today."""
        if self.pool is None or not self._users_limits.of(uid).bytes_per_day:
            return self.daily_bytes.is_spent(uid, (), {})
        return self.daily_bytes.is_spent(uid, self.pool.leases.of_user(uid), self.pool.leases.live)

    def _interrupt(self, uid: Uid) -> None:
        """A user's bytes of the day are spent: what is running is set back into the queue, and its part kept."""
        if self.pool is None:
            return
        for lease in self.pool.leases.of_user(uid):
            if lease.outcome is None and lease.phase in _INTERRUPTIBLE:
                self.pool.halt(lease, TaskEvent.INTERRUPT)

    async def lost(self, losses: list[Loss]) -> None:
        """Record the loss of leases."""
        if self.pool is None:
            return
        live = {task_id: progress.bytes_done for task_id, progress in self.pool.leases.live.items()}
        await self._outcomes.record_losses(losses, {int(task_id): done for task_id, done in live.items()})
        for loss in losses:
            self.pool.end_lease(loss.lease)
        self._leftovers = True

    # --- planning ---

    def _committed(self, moved: list[Moved]) -> None:
        self._picture.forget(move.uid for move in moved)
        if any(move.new is TaskState.RETRYING for move in moved):
            self._due.set()
        for move in moved:
            if move.new in _SET_ASIDE:
                self._leftovers = True
                self._take_back(move)
        self.changed()

    def _take_back(self, move: Moved) -> None:
        """A task was set aside in the very moment in which it was handed out: have it let go."""
        if self.pool is None:
            return
        for task_id in self.pool.leases.tasks().intersection(move.ids) if move.ids else self.pool.leases.tasks():
            lease = self.pool.leases.of_task(task_id)
            if lease is None or lease.uid != move.uid or lease.outcome is not None:
                continue
            task = self._store.read.task(task_id)
            if task is not None and task.state in _SET_ASIDE and lease.phase is not LeasePhase.DISCARDING:
                self.pool.halt(lease, _SET_ASIDE[task.state])

    def _plan_soon(self) -> None:
        began_mono = self._loop.time()
        self._planned = None
        share = _PLAN_AHEAD_SHARE if self._plan() else _PLAN_SHARE
        self._planned_mono = self._loop.time()
        elapsed_s = self._planned_mono - began_mono
        self._plan_pause_s = min(_PLAN_LEAST_OFTEN_S, max(_PLAN_EVERY_S, elapsed_s / share))

    def _plan(self) -> bool:
        """Make a plan and carry it out; return whether it did nothing but hand out more ahead."""
        pool = self.pool
        if pool is None or not pool.ready:
            return False
        if self._leftovers:
            self._leftovers = remove_leftovers(self._store.read, pool, self.max_tasks_num)
        views, leaving = pool.views()
        hosts = pool.allotments.hosts
        busy = [view for view in views if view.load]
        quick_num = sum(1 for view in busy if view.is_quick)
        quick_limit = self._crew.limit(quick_num, time.monotonic())
        now = time.time()
        self.host_holds.expire(time.monotonic())
        free = Free(
            slots=max(0, self.max_tasks_num - len(busy)),
            slots_num=self.max_tasks_num,
            takes_quick=quick_num < quick_limit,
        )
        snapshot = Snapshot(
            slots=self.max_tasks_num,
            workers=views,
            leaving=leaving,
            users=self._picture.draw(pool, views, free, lambda uid: self._may_run(pool, uid, now)),
            host_limit=hosts.limit,
            host_room=hosts.room(),
            quick_limit=quick_limit,
            freed=pool.freed_num(),
        )
        actions = plan(snapshot)
        self._carry_out(pool, actions)
        have_some = {view.key for view in busy}
        return all(isinstance(action, AssignTask) and action.worker_key in have_some for action in actions)

    def _carry_out(self, pool: Pool, actions: list[Action]) -> None:
        assigned = [action for action in actions if isinstance(action, AssignTask)]
        later = assigned[_AT_ONCE:]
        if later:
            actions = [action for action in actions if not isinstance(action, AssignTask)] + assigned[:_AT_ONCE]
        wanted = [action.task_id for action in actions if isinstance(action, AssignTask | SpawnWorker)]
        specs = self._store.read.specs(wanted) if wanted else {}
        short: dict[str, int] = {}
        goes_on = len(wanted) >= AHEAD_AT_ONCE
        for action in actions:
            match action:
                case AssignTask(worker_key=key, task_id=task_id, begins_turn=begins_turn):
                    if task_id in specs:
                        if begins_turn:
                            self._count_turn(specs[task_id])
                        pool.assign(key, specs[task_id], begins_turn=begins_turn)
                case SpawnWorker(uid=uid, task_id=task_id):
                    if task_id in specs:
                        self._count_turn(specs[task_id])
                        pool.spawn(specs[task_id])
                        goes_on |= pool.roster.expected(uid)[0] > 1  # what it is handed ahead
                case RetireWorker(worker_key=key):
                    pool.retire(key)
                case MakeRoom(host=host, tasks=tasks):
                    short[host] = tasks
                case _:
                    assert_never(action)
        pool.share(short)
        if later:
            self._rest = self._loop.call_soon(self._carry_on, pool, later, short)
        elif goes_on:
            self.changed()

    def _carry_on(self, pool: Pool, actions: list[AssignTask], short: dict[str, int]) -> None:
        """Hand out more of what was planned, after others have had their turn: where it is still right to."""
        self._rest = None
        ids = [action.task_id for action in actions[:_AT_ONCE]] if pool.ready else []
        specs = self._store.read.specs(ids)
        states = self._store.read.states(ids)
        leased = pool.leases.tasks()
        now = time.time()
        may_run = {uid: self._may_run(pool, uid, now) for uid in {spec.uid for spec in specs.values()}}
        for action in actions[: len(ids)]:
            spec = specs.get(action.task_id)
            if spec is None or spec.id in leased or states.get(spec.id) is not TaskState.ENQUEUED:
                continue
            if may_run[spec.uid] and pool.roster.is_useful(action.worker_key):
                if action.begins_turn:
                    self._count_turn(spec)
                pool.assign(action.worker_key, spec, begins_turn=action.begins_turn)
        pool.share(short)
        self._planned_mono = self._loop.time()
        if actions[_AT_ONCE:] and ids:
            self._rest = self._loop.call_soon(self._carry_on, pool, actions[_AT_ONCE:], short)
        else:
            self.changed()

    def _may_run(self, pool: Pool, uid: Uid, now: float) -> bool:
        """Return whether a user's tasks may be begun at all."""
        if self._is_held(uid, now) or pool.hanging.are_too_many(uid):
            return False
        if self.is_spent(uid):
            self._set_day_timer(now)
            return False
        return True

    def _count_turn(self, spec: TaskSpec) -> None:
        self._strides.served(spec.uid, self._users_limits.of(spec.uid).weight)

    # --- time ---

    def _is_held(self, uid: Uid, now: float) -> bool:
        return self.clearing[uid] > 0 or any(
            _active(self.holds[key], now) for key in (uid, EVERYBODY) if key in self.holds
        )

    def _leave_alone(self, lease: Lease, report: Failed) -> None:
        """A server asked to be asked later: that is for all tasks of its host that the user has."""
        if report.code is not FailureCode.SERVER_BUSY or not report.retry_after_s:
            return
        host = lease.sources[min(report.source, len(lease.sources) - 1)]
        self.host_holds.hold(lease.uid, host, report.retry_after_s, time.monotonic())
        self._set_host_timer()

    def _set_host_timer(self) -> None:
        """Plan again when the next host may be asked again."""
        if self._host_timer is not None:
            self._host_timer.cancel()
            self._host_timer = None
        end_mono = self.host_holds.next_end_mono()
        if end_mono is not None:
            self._host_timer = self._loop.call_later(timer_delay(end_mono - time.monotonic()), self._host_is_open)

    def _host_is_open(self) -> None:
        self.host_holds.expire(time.monotonic())
        self._set_host_timer()
        self.changed()

    def _set_day_timer(self, now: float) -> None:
        """Plan again when the next day begins; now and then before that, since a clock may be set."""
        if self._day_timer is None:
            self._day_timer = self._loop.call_later(timer_delay(next_day_at(now) - now), self._day_may_have_begun)

    def _day_may_have_begun(self) -> None:
        self._day_timer = None
        self.changed()

    def _set_hold_timer(self) -> None:
        """Plan again when the next hold runs out, whoever's it is."""
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        now = time.time()
        ends = [until for until in self.holds.values() if until is not None and until > now]
        if ends:
            self._hold_timer = self._loop.call_later(timer_delay(min(ends) - now), self._hold_ran_out)

    def _hold_ran_out(self) -> None:
        self._set_hold_timer()
        self.changed()


def _active(until: float | None, now: float) -> bool:
    return until is None or until > now
