"""Until when a worker must have done what it was told: who does not is killed, and its tasks go on with another.

Runs as: the supervisor.  Talks to: the loop's timers, the log, workers (SIGKILL).
Invariants: an order that must be obeyed has a timer from the moment it is given. While what workers say can't be
recorded, and so is not read, nobody's time runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from autodl_lib.contract.task import TaskId
from autodl_lib.contract.worker_states import WorkerState
from autodl_lib.supervisor.workers.worker_handle import Lease, Worker

BIND_TIMEOUT_S = 60.0
HALT_TIMEOUT_S = 8.0
GRANT_TIMEOUT_S = 10.0
ASKED_IN_VAIN = 4

logger = logging.getLogger(__name__)


class Deadlines:
    """The timers of a pool."""

    def __init__(self, is_awaited: Callable[[str], bool], is_held_up: Callable[[], bool]) -> None:
        """`is_awaited` says whether others wait for connections that a lease is to give up, `is_held_up` whether
        reports wait for the queue's disk.
        """
        self._is_awaited = is_awaited
        self._is_held_up = is_held_up
        self._loop = asyncio.get_running_loop()

    def to_report_for_duty(self, worker: Worker) -> None:
        """A worker has been started."""
        self._after(BIND_TIMEOUT_S, _kill_if_unbound, worker)

    def to_leave(self, worker: Worker) -> None:
        """A worker was told to go."""
        self._loop.call_later(HALT_TIMEOUT_S, _kill_if_alive, worker)

    def to_let_go(self, worker: Worker, lease: Lease) -> None:
        """A worker was told to let go of a task."""
        self._after(HALT_TIMEOUT_S, _kill_if_held, worker, lease)

    def to_answer_grant(self, worker: Worker, lease: Lease) -> None:
        """A worker was told how many connections it may use; it matters where others wait for those it gives up."""
        self._after(GRANT_TIMEOUT_S, self._kill_if_unanswered, worker, lease, lease.grants)

    def _after(self, timeout_s: float, look: Callable[..., None], *arguments: Any) -> None:
        """Look after so long; where reports are held up then, after as long again."""
        self._loop.call_later(timeout_s, self._due, timeout_s, look, arguments)

    def _due(self, timeout_s: float, look: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if self._is_held_up():
            self._after(timeout_s, look, *arguments)
        else:
            look(*arguments)

    def _kill_if_unanswered(self, worker: Worker, lease: Lease, grants: int) -> None:
        if lease.grants == grants and lease.id in worker.leases and self._is_awaited(lease.id):
            _kill(worker, f"does not answer a grant for task {lease.task_id}", lease.task_id)


def kill_silent(workers: Iterable[Worker]) -> None:
    """Kill workers that have work and are stopped or hang: counted, not timed, since we may be stopped too."""
    for worker in workers:
        if worker.state is WorkerState.BUSY and worker.ask() >= ASKED_IN_VAIN:
            _kill(worker, "does not answer", None)


def _kill_if_held(worker: Worker, lease: Lease) -> None:
    if lease.id in worker.leases:
        _kill(worker, f"does not let go of task {lease.task_id}", lease.task_id)


def _kill_if_unbound(worker: Worker) -> None:
    if worker.state is WorkerState.SPAWNED:
        worker.kill()


def _kill_if_alive(worker: Worker) -> None:
    if worker.state is not WorkerState.RETIRED:
        worker.kill()


def _kill(worker: Worker, why: str, task_id: TaskId | None) -> None:
    if worker.is_killed:
        return
    extra = {"event": "worker_killed", "uid": worker.uid, "task_id": task_id}
    logger.warning("worker %d of uid %d %s and is killed", worker.pid, worker.uid, why, extra=extra)
    worker.kill()
