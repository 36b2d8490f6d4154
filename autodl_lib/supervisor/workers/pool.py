"""At most max_tasks_num workers: starts them, hands them work, notices their end.

Runs as: the supervisor.  Talks to: workers (orders by pipe, reports by the queue), the forkserver, Outcomes.
Security: what a worker reports is hostile (reception.py). One that says what it may not is killed, and its tasks are
lost, which is never success.
Invariants: a lease goes only when what ended it is on disk, so a task is never handed out twice.
How it fails: a dead worker, manager or forkserver is an event (pidfd); each is replaced, and tasks go on
from their part files.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping

from autodl_lib.contract.settings import TransferSection, WorkerSection
from autodl_lib.contract.states import TaskEvent
from autodl_lib.contract.worker_messages import Assign, Configure, Discard, Grant, Halt, Publish, Recall, Retire
from autodl_lib.contract.worker_states import LeasePhase, WorkerState
from autodl_lib.privilege.landlock import landlock_abi
from autodl_lib.store.rows import Leftover, TaskSpec
from autodl_lib.supervisor.scheduling.picture import WorkerView
from autodl_lib.supervisor.scheduling.rate_limits import RateLimits
from autodl_lib.supervisor.workers.allotments import Allotments, Orders
from autodl_lib.supervisor.workers.assignments import download, lease_of, obeyed, removal
from autodl_lib.supervisor.workers.background import Background
from autodl_lib.supervisor.workers.deadlines import ASKED_IN_VAIN, Deadlines, kill_silent
from autodl_lib.supervisor.workers.hanging import Hanging
from autodl_lib.supervisor.workers.launching import launch
from autodl_lib.supervisor.workers.leases import Leases
from autodl_lib.supervisor.workers.listener import Listener
from autodl_lib.supervisor.workers.losses import Loss, log_lost, losses_of
from autodl_lib.supervisor.workers.queue_link import QueueLink
from autodl_lib.supervisor.workers.reception import Reception
from autodl_lib.supervisor.workers.roster import Coming, Roster
from autodl_lib.supervisor.workers.starter import Starter
from autodl_lib.supervisor.workers.watch import Watch
from autodl_lib.supervisor.workers.worker_handle import Lease, Worker

IDLE_TIMEOUT_S = 15.0
START_RETRY_S = 0.5
KILL_TIMEOUT_S = 1.0
RATE_INTERVAL_S = 1.0

_DISCARDS = frozenset({TaskEvent.CANCEL, TaskEvent.CLEAR})

logger = logging.getLogger(__name__)


class Pool:
    """The workers."""

    def __init__(self, listener: Listener, tag: str, settings: TransferSection, limits: RateLimits) -> None:
        self._listener = listener
        self._tag = tag
        self._loop = asyncio.get_running_loop()
        self._starter = Starter()
        self._background = Background()
        self.leases = Leases()
        self.hanging = Hanging(self._found_hanging)
        self._empty = asyncio.Event()
        self._has_landlock = landlock_abi() > 0
        self._closing = False
        self._handed_out: list[tuple[Worker, Lease, TaskSpec]] = []
        self._rate_timer: asyncio.TimerHandle | None = None
        self.worker_settings = WorkerSection()
        self.allotments = Allotments(limits, self.leases.speed_of)
        self.roster = Roster(self.allotments.hosts.hosts_of)
        self._reception = Reception(self, listener)
        self._deadlines = Deadlines(self.allotments.hosts.is_awaited, self._reception.is_held_up)
        self._link = QueueLink(self._starter, self._reception.take, self._queue_restarted, self.leases.held_num)
        self._watch = Watch(self._look_after, lambda: self.worker_settings.answer_timeout_s / ASKED_IN_VAIN)
        self.configure(settings)

    # --- what the scheduler sees ---

    def views(self) -> tuple[tuple[WorkerView, ...], int]:
        """Return the workers that can take work, those still starting included, and how many are leaving."""
        return self.roster.views(), self.roster.leaving_num() - len(self.hanging)

    def freed_num(self) -> int:
        """Return how many of those that are leaving have nothing left to do."""
        return self.roster.freed_num() - self.hanging.idle_num()

    def folder_of(self, path: str) -> str:
        """Return what a worker must serve to be given a task that saves to `path`; "" where any worker serves all."""
        return path if self.confines else ""

    @property
    def confines(self) -> bool:
        """Whether each new worker serves one folder alone."""
        return self._has_landlock and self.worker_settings.confine_to_folder

    @property
    def ready(self) -> bool:
        """Whether work can be handed out."""
        return self._link.up.is_set() and not self._closing

    # --- orders ---

    def assign(self, worker_key: str, spec: TaskSpec, *, begins_turn: bool = False) -> None:
        """Hand a task to a worker of its owner and folder: with the next `share`, or when it has started."""
        worker = self.roster.starting.get(worker_key) or self.roster.live[worker_key]
        lease = lease_of(spec, self._settings, worker.folder)
        self.allotments.add(lease, worker_key)
        if isinstance(worker, Coming):
            self.leases.put(lease, None)
            worker.work.append((lease, spec))
            return
        if begins_turn:
            worker.begin_turn()
        self._give(worker, lease)
        self._handed_out.append((worker, lease, spec))

    def spawn(self, spec: TaskSpec) -> None:
        """Start a worker for a task's owner and hand it the task."""
        lease = lease_of(spec, self._settings, self.folder_of(spec.dir))
        self.allotments.add(lease, self._spawn(lease, spec))

    def share(self, waiting: Mapping[str, int]) -> None:
        """Share connections and rates between all who have tasks, and send what was handed out its way.

        `waiting` counts, by host, the tasks that could start but for a full host.
        """
        self.send(self.allotments.balance(waiting))
        for worker, lease, spec in self._handed_out:
            worker.send(self._download(spec, lease))
        self._handed_out.clear()
        if self._rate_timer is None and self.allotments.rates.is_active:
            self._rate_timer = self._loop.call_later(RATE_INTERVAL_S, self._share_rates)

    def send(self, orders: Orders) -> None:
        """Tell workers what their assignments may take from now on."""
        for lease, order in orders:
            worker = self.leases.worker_of(lease)
            if worker is not None:
                worker.send(order)
                if isinstance(order, Grant):
                    self._deadlines.to_answer_grant(worker, lease)

    def discard(self, leftovers: list[Leftover], worker_key: str | None) -> None:
        """Have part files of a user's settled tasks in a folder removed, by its worker or a new one."""
        for leftover in leftovers:
            lease, order = removal(leftover, self._tag, self.folder_of(leftover.dir))
            if worker_key is None:
                worker_key = self._spawn(lease, order)
                continue
            worker = self.roster.starting.get(worker_key) or self.roster.live[worker_key]
            if isinstance(worker, Coming):
                self.leases.put(lease, None)
                worker.work.append((lease, order))
            else:
                self._give(worker, lease)
                worker.send(order)

    def publish(self, leases: list[Lease]) -> None:
        """Let workers publish: what makes it safe is on disk."""
        of_worker: defaultdict[Worker, list[str]] = defaultdict(list)
        for lease in leases:
            worker = self.leases.worker_of(lease)
            if worker is not None and not lease.halting and lease.phase is LeasePhase.READY:
                lease.phase = LeasePhase.PUBLISHING
                of_worker[worker].append(lease.id)
        for worker, ids in of_worker.items():
            worker.send(Publish(leases=tuple(ids)))

    def halt(self, lease: Lease, outcome: TaskEvent) -> None:
        """Have a worker let go of a task: discarding its part for CANCEL and CLEAR, else keeping it."""
        lease.outcome = outcome
        lease.halting = True
        worker = self.leases.worker_of(lease)
        if worker is None:
            return  # it is still starting: the order follows its assignment
        worker.send(Halt(lease=lease.id, discard=outcome in _DISCARDS))
        self._deadlines.to_let_go(worker, lease)

    def recall(self, leases: Iterable[Lease]) -> list[asyncio.Event]:
        """Have workers give back what they have not begun; return what is set once nothing of it begins any more.

        What has begun goes on. A worker that does not answer is not killed for that: it may have a download under way
        on a slow disk. One that hangs is seen to, as ever.
        """
        of_worker: defaultdict[Worker, list[str]] = defaultdict(list)
        answers = []
        for lease in leases:
            if lease.phase is not LeasePhase.ASSIGNED:
                continue
            if lease.outcome is not None:
                answers.append(lease.ended)
                continue
            if lease.recalled is None:
                lease.recalled = asyncio.Event()
                worker = self.leases.worker_of(lease)
                if worker is not None:  # else it is still starting: the order follows its assignment
                    of_worker[worker].append(lease.id)
            answers.append(lease.recalled)
        for worker, ids in of_worker.items():
            worker.send(Recall(leases=tuple(ids)))
        return answers

    def retire(self, worker_key: str) -> None:
        """Let a worker go."""
        worker = self.roster.live.get(worker_key)
        if worker is not None and not worker.retiring:
            worker.retiring = True
            worker.send(Retire())
            self._deadlines.to_leave(worker)

    def end_lease(self, lease: Lease) -> None:
        """Forget a lease: what ended it is on disk."""
        lease.phase = LeasePhase.ENDED
        lease.ended.set()
        if lease.recalled is not None:
            lease.recalled.set()
        self.allotments.end(lease)
        worker = self.leases.drop(lease)
        if worker is None or worker.leases.pop(lease.id, None) is None:
            return
        if not worker.leases and worker.state is WorkerState.BUSY:
            worker.move(WorkerState.IDLE)
            worker.idle_timer = self._loop.call_later(IDLE_TIMEOUT_S, self.retire, worker.key)

    def configure(self, settings: TransferSection) -> None:
        """Have new settings obeyed: limits at the next `share`, the rest from the next assignments on."""
        self._settings = settings
        self.allotments.hosts.configure(settings.connections_per_host, settings.connections)
        self.allotments.rates.limits_changed()
        for worker in self.roster.live.values():
            worker.send(Configure(settings=obeyed(settings)))

    # --- life ---

    async def start(self) -> None:
        """Start the forkserver and the report queue.

        Raises: OSError, EOFError.
        """
        await self._starter.start()
        await self._link.start()
        self._watch.start()

    def stop_restarting(self) -> None:
        """The daemon stops: nothing new is handed out, and what ends is not replaced."""
        self._closing = True
        self._link.stop_restarting()
        self._starter.stop_restarting()

    async def close(self, timeout_s: float) -> None:
        """Have all workers save their parts and end; kill what is left after `timeout_s` seconds."""
        self.stop_restarting()
        for key in list(self.roster.live):
            self.retire(key)
        self._empty.clear()
        self._note_empty()
        if not self._empty.is_set():
            try:
                await asyncio.wait_for(self._empty.wait(), timeout_s)
            except TimeoutError:
                logger.warning("workers did not end in time and are killed", extra={"event": "worker_killed"})
                self.kill_all()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._empty.wait(), KILL_TIMEOUT_S)
        self._watch.stop()
        if self._rate_timer is not None:
            self._rate_timer.cancel()
        await self._background.wait(1)
        self._link.close()
        self._starter.close()

    def kill_all(self) -> None:
        """Kill every worker at once."""
        for worker in self.roster.live.values():
            worker.kill()

    # --- inside ---

    async def _look_after(self) -> bool:
        """See that workers answer, and that it comes through; return whether to look again."""
        if self._reception.is_held_up():
            for worker in self.roster.live.values():
                worker.excuse()
        elif self.leases:
            await self._link.check()
            kill_silent(self.roster.live.values())
            await self._starter.end_orphans()
        return bool(self.leases)

    def _share_rates(self) -> None:
        """Now and then, while a rate is shared: who is slow leaves the rest to others."""
        self._rate_timer = None
        if self.allotments.rates.is_active:
            self.send(self.allotments.tick())
            self._rate_timer = self._loop.call_later(RATE_INTERVAL_S, self._share_rates)

    def _give(self, worker: Worker, lease: Lease) -> None:
        self.leases.put(lease, worker)
        worker.leases[lease.id] = lease
        self._watch.work_is_given()
        if worker.idle_timer is not None:
            worker.idle_timer.cancel()
            worker.idle_timer = None
        if worker.state is WorkerState.IDLE:
            worker.move(WorkerState.BUSY)

    def _spawn(self, lease: Lease, work: TaskSpec | Discard) -> str:
        """Start a worker with its first work; return its key."""
        key = secrets.token_hex(8)
        coming = Coming(key=key, uid=lease.uid, folder=lease.folder, work=[(lease, work)])
        self.roster.starting[key] = coming
        self.leases.put(lease, None)
        self._background.run(self._start_worker(coming))
        return key

    async def _start_worker(self, coming: Coming) -> None:
        try:
            worker = await launch(self._starter, self._link, coming, self.worker_settings)
        except Exception as error:  # noqa: BLE001 - whatever it is, the place and the task must become free again
            logger.error(
                "can't start a worker: %s", str(error) or type(error).__name__, extra={"event": "worker_start_failed"}
            )
            await asyncio.sleep(START_RETRY_S)
            del self.roster.starting[coming.key]
            self._note_empty()
            self._reception.forget(coming.key)
            why = "no worker started"
            losses = [Loss(lease=lease, blamed=False, no_account=False, reason=why) for lease, _ in coming.work]
            await self._listener.lost(losses)
            self._listener.changed()
            return
        self.roster.add(worker)
        worker.on_exit(lambda: self._ended(worker), killed=lambda: self.hanging.killed(worker))
        self._deadlines.to_report_for_duty(worker)
        worker.send(Configure(settings=obeyed(self._settings)))
        for lease, work in coming.work:
            self._begin(worker, lease, work)
        if self._closing:
            self.retire(coming.key)
        await self._reception.take_early(coming.key)

    def _begin(self, worker: Worker, lease: Lease, work: TaskSpec | Discard) -> None:
        """Give a worker that has started what it was started for."""
        if lease.phase is not LeasePhase.ENDED:
            self._give(worker, lease)
            if isinstance(work, Discard):
                worker.send(work)
            else:
                worker.send(self._download(work, lease))
        if lease.outcome is not None:
            self.halt(lease, lease.outcome)
        elif lease.recalled is not None and lease.phase is not LeasePhase.ENDED:
            worker.send(Recall(leases=(lease.id,)))

    def _download(self, spec: TaskSpec, lease: Lease) -> Assign:
        return download(spec, lease, self._tag, self.allotments.first(lease), is_again=self.leases.may_be_again(spec))

    def distrust(self, worker: Worker, why: str) -> None:
        """Kill a worker that said what it may not; its tasks are lost."""
        logger.error(
            "worker %d of uid %d broke the protocol and is killed: %s",
            worker.pid,
            worker.uid,
            why,
            extra={"event": "worker_distrusted", "uid": worker.uid},
        )
        worker.is_distrusted = True
        worker.kill()

    def _ended(self, worker: Worker) -> None:
        """A worker's process is gone; what it reported before that may still be on its way."""
        self._loop.remove_reader(worker.pidfd)
        worker.has_ended = True
        self.hanging.ended(worker)
        was_retiring, worker.retiring = worker.retiring, True
        self._background.run(self._lose(worker, was_retiring))

    async def _lose(self, worker: Worker, was_retiring: bool) -> None:
        if worker.leases:  # else there is nothing that it could still have to say
            await self._link.settle()
        del self.roster.live[worker.key]
        status = await self._starter.exit_status(worker.process)
        await self._starter.end_orphans()
        was_bound = worker.state is not WorkerState.SPAWNED
        worker.release()
        leases = [lease for lease in worker.leases.values() if lease.phase is not LeasePhase.ENDED]
        if leases:
            self.leases.lose(leases)
            losses = losses_of(leases, status, was_retiring=was_retiring, was_bound=was_bound)
            if any(loss.blamed for loss in losses):
                log_lost(worker.pid, worker.uid, status)
            await self._listener.lost(losses)
        self._note_empty()
        self._listener.changed()

    def _note_empty(self) -> None:
        if not self.roster.starting and all(key in self.hanging for key in self.roster.live):
            self._empty.set()

    def _found_hanging(self) -> None:
        self._note_empty()
        self._listener.changed()

    def _queue_restarted(self) -> None:
        """The report queue died, or is there again: workers of the old one can't report, and go."""
        if not self._link.up.is_set():
            for key in list(self.roster.live):
                self.retire(key)
        self._listener.changed()
