"""Keeps the pool full: asks the scheduler whenever something has changed, and does what it says.

Runs as: the supervisor.  Talks to: the store (reads), the scheduler, the pool, the outcomes.
Invariants: no polling; it runs when work, a slot, a setting or a hold changed, and when a retry is due.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import assert_never

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.settings import Settings
from autodl_lib.contract.states import TaskEvent, TaskState
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.contract.worker_messages import Failed, Finished, Halted, Returned
from autodl_lib.contract.worker_states import LeasePhase
from autodl_lib.store.rows import Moved, TaskSpec
from autodl_lib.store.store import Store
from autodl_lib.supervisor.audit import AuditLog
from autodl_lib.supervisor.daily_bytes import DailyBytes, next_day_at
from autodl_lib.supervisor.due_timer import DueTimer
from autodl_lib.supervisor.leftovers import remove_leftovers
from autodl_lib.supervisor.making_way import MakingWay
from autodl_lib.supervisor.outcomes import Outcomes
from autodl_lib.supervisor.queue_holds import QueueHolds
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

_DUE_BATCH = 1000
_PLAN_EVERY_S = 0.01
_PLAN_LEAST_OFTEN_S = 0.05
_AT_ONCE = 24
"""So many tasks are handed out in one turn of the loop, a millisecond or two: clients' turns come in between."""
_PLAN_SHARE = 0.1
_PLAN_AHEAD_SHARE = 0.04
"""Of the time that planning may take in a flood of changes: the more a plan costs, the more changes it is for. Plans
that only hand out more ahead, to workers that have some, are for still more."""

_GIVEN_BACK = (Halted, Returned)
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
        self._network_task: asyncio.Future[int] | None = None
        self._leftovers = True
        self.max_tasks_num = max_tasks_num
        self.holds = QueueHolds(store.read.holds(), self.changed)
        self.host_holds = HostHolds()
        self._picture = QueuePicture(store, users, self._strides, self.host_holds)
        self._making_way = MakingWay(users, self._waiting_for_a_place)
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
        self.changed()

    def close(self) -> None:
        """Plan no more: the queue is about to be closed."""
        self.pool = None
        self._due.close()
        self._making_way.close()

    def configure(self, settings: Settings) -> None:
        """Obey new settings."""
        self._settings = settings
        self._outcomes.retry = self._due.settings = settings.retry
        self.changed()

    def changed(self) -> None:
        """Plan soon: something has changed. In a flood of changes, one plan is for many of them."""
        if self._planned is None and self._rest is None:
            self._planned = self._loop.call_at(self._planned_mono + self._plan_pause_s, self._plan_soon)

    def network_came(self) -> None:
        """The machine's network has changed: tasks that wait for it are due."""
        if self._network_task is None:
            self._network_task = self._store.write(lambda transaction: transaction.enqueue_network_down(_DUE_BATCH))
            self._network_task.add_done_callback(self._network_done)

    def _network_done(self, done: asyncio.Future[int]) -> None:
        self._network_task = None
        if not done.cancelled() and done.exception() is None and done.result():
            self.network_came()

    def ask_again(self, task_ids: list[TaskId]) -> None:
        """Let hosts be asked that wanted to be left alone: the owners of these tasks want it now."""
        for spec in self._store.read.specs(task_ids).values() if self.host_holds.are_any() else ():
            self.host_holds.lift(spec.uid, spec.host)
        self.changed()

    def set_max_tasks(self, number: int) -> None:
        """Change how many tasks may run at once; those beyond it go on to their end, if they have begun."""
        if number < self.max_tasks_num and self.pool is not None:
            self.pool.recall(self.pool.leases.downloads())
        self.max_tasks_num = number
        self.changed()

    # --- what the pool tells ---

    async def reported(self, batch: list[Admitted]) -> None:
        """Record reports, then do what follows from them."""
        told = {
            item.lease.uid
            for item in batch
            if isinstance(item.report, Failed) and self._leave_alone(item.lease, item.report)
        }
        for uid in told:
            self._recall_of_held_hosts(uid)
        recorded = await self._outcomes.record(batch)
        if self.pool is None:
            return
        for lease in recorded.ended:  # all at once: who has asked for one of them must find it ended, or still there
            self.pool.end_lease(lease)
        self._picture.forget(item.lease.uid for item in batch if isinstance(item.report, _GIVEN_BACK))
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
        self._picture.forget(loss.lease.uid for loss in losses)
        self._leftovers = True

    # --- planning ---

    def _committed(self, moved: list[Moved]) -> None:
        self._picture.take(moved)
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
        for task_id in move.ids or self.pool.leases.tasks():
            lease = self.pool.leases.of_task(task_id)
            if lease is None or lease.uid != move.uid or lease.outcome is not None:
                continue
            task = self._store.read.task(task_id)
            if task is not None and task.state in _SET_ASIDE and lease.phase is not LeasePhase.DISCARDING:
                self.pool.halt(lease, _SET_ASIDE[task.state])

    def _plan_soon(self) -> None:
        self._planned = None
        if self._rest is not None:
            return  # what is planned already is still being handed out; the next plan follows
        began_mono = self._loop.time()
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
        if free.slots:
            self._making_way.some_are_free()
        else:
            self._making_way.all_are_taken(pool)
        have_some = {view.key for view in busy}
        return all(isinstance(action, AssignTask) and action.worker_key in have_some for action in actions)

    def _waiting_for_a_place(self, pool: Pool) -> set[Uid]:
        """Return who has none and a task that could start now, were there one."""
        views, _ = pool.views()
        one_more = Free(slots=1, slots_num=self.max_tasks_num, takes_quick=False)
        now = time.time()

        def may_run(uid: Uid) -> bool:
            return not pool.roster.busy_of(uid) and self._may_run(pool, uid, now)

        users = self._picture.draw(pool, views, one_more, may_run)
        return {user.uid for user in users if user.connections is None or user.connections > 0}

    def _carry_out(self, pool: Pool, actions: list[Action]) -> None:
        assigned = [action for action in actions if isinstance(action, AssignTask)]
        later = assigned[_AT_ONCE:]
        if later:
            actions = [action for action in actions if not isinstance(action, AssignTask)] + assigned[:_AT_ONCE]
        wanted = [action.task_id for action in actions if isinstance(action, AssignTask | SpawnWorker)]
        specs = self._specs(wanted)
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
        specs = self._specs(ids)
        leased = pool.leases.tasks()
        now = time.time()
        may_run = {uid: self._may_run(pool, uid, now) for uid in {spec.uid for spec in specs.values()}}
        for action in actions[: len(ids)]:
            spec = specs.get(action.task_id)
            if spec is None or spec.id in leased:
                continue
            if spec.host in self.host_holds.of(spec.uid):
                continue  # it asked to be left alone only just now
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

    def _specs(self, wanted: list[TaskId]) -> dict[TaskId, TaskSpec]:
        """Return what workers must know of tasks: of those that wait at this very moment."""
        specs = self._store.read.specs(wanted, waiting=True) if wanted else {}
        if len(specs) < len(wanted):
            self._picture.forget()
            self.changed()
        return specs

    def _may_run(self, pool: Pool, uid: Uid, now: float) -> bool:
        """Return whether a user's tasks may be begun at all."""
        if not self.holds.may_begin(uid, now) or pool.hanging.are_too_many(uid):
            return False
        if self.is_spent(uid):
            self._set_day_timer(now)
            return False
        return True

    def _count_turn(self, spec: TaskSpec) -> None:
        self._strides.served(spec.uid, self._users_limits.of(spec.uid).weight)

    # --- time ---

    def _leave_alone(self, lease: Lease, report: Failed) -> bool:
        """A server may have asked to be asked later, for all tasks of its host that the user has: return whether."""
        if report.code is not FailureCode.SERVER_BUSY or not report.retry_after_s or report.elsewhere:
            return False
        host = lease.sources[min(report.source, len(lease.sources) - 1)]
        self.host_holds.hold(lease.uid, host, report.retry_after_s, time.monotonic())
        self._set_host_timer()
        return True

    def _recall_of_held_hosts(self, uid: Uid) -> None:
        """Take back what a user's workers were handed ahead of hosts that are to be left alone."""
        if self.pool is not None:
            held = self.host_holds.of(uid)
            self.pool.recall(lease for lease in self.pool.leases.of_user(uid) if lease.sources[0] in held)

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
