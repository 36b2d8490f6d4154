"""What a worker's report, or its loss, means for the queue.

Runs as: the supervisor.  Talks to: the store; the pool, after the commit.
Invariants: an order that follows from a report (publish) goes out only after the commit that recorded
the report; a lease ends only then too. A report that the queue can't take any more (the task has moved on)
changes nothing.
How it fails: while the database can't be written, reports wait and are tried again; nothing is dropped.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autodl_lib.contract.errors import InternalError, NoSuchTask, StoreUnusable, WrongState
from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.settings import RetrySection
from autodl_lib.contract.states import TaskEvent, TaskState, Want
from autodl_lib.contract.task import TaskError, TaskId, Uid
from autodl_lib.contract.worker_messages import (
    Current,
    Discarded,
    Failed,
    FileIdentity,
    Finished,
    Halted,
    Note,
    Progress,
    Ready,
    Retained,
    Returned,
    Started,
    Yielded,
)
from autodl_lib.contract.worker_states import LeasePhase
from autodl_lib.store.rows import Change, Description, Finish
from autodl_lib.store.store import Store
from autodl_lib.store.transaction import Transaction
from autodl_lib.supervisor.audit import printable
from autodl_lib.supervisor.scheduling.retry import Attempt, decide
from autodl_lib.supervisor.workers.admission import Admitted
from autodl_lib.supervisor.workers.losses import Loss
from autodl_lib.supervisor.workers.worker_handle import Lease, Worker

_STORE_RETRY_S = 1.0
_MOST_LOST_REMOVALS = 5
"""A worker may be killed for want of memory; where it is so each time, it may be for the file."""
_NOT_KEPT = frozenset({Progress, Retained, Yielded})
_OF_MANY = frozenset({Ready, Finished})
"""Reports that come in floods: those of a batch are recorded together."""

_OUTCOME_OF = {Want.PAUSE: TaskEvent.PAUSE, Want.CANCEL: TaskEvent.CANCEL}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What follows, now that it is on disk: leases to publish, leases that are over, workers not to be trusted."""

    publish: list[Lease]
    ended: list[Lease]
    refused: list[tuple[Worker, str]]


class Outcomes:
    """Records reports and losses."""

    def __init__(self, store: Store, retry: RetrySection) -> None:
        self._store = store
        self.retry = retry
        self._lost_removals: Counter[TaskId] = Counter()
        """How many workers were lost, each with the task whose part file it was removing."""
        # Of the batch that is being recorded, on the writer's thread: written once for all of its reports.
        self._answers: Counter[tuple[Uid, int]] = Counter()
        self._received: Counter[Uid] = Counter()

    async def record(self, batch: list[Admitted]) -> Recorded:
        """Record reports in one commit; return what follows from it."""
        kept = [item for item in batch if type(item.report) not in _NOT_KEPT]
        refused: dict[str, tuple[Worker, str]] = {}
        try:
            if kept:
                await self._write(self._recorder(kept))
        except InternalError:
            # One of them can't be recorded at all: find it, and keep the others.
            for item in kept:
                try:
                    await self._write(self._recorder([item]))
                except InternalError as error:
                    refused[item.worker.key] = (item.worker, str(error))
        kept = [item for item in kept if item.worker.key not in refused]
        publish = [item.lease for item in kept if isinstance(item.report, Ready)]
        ended = [item.lease for item in kept if item.lease.phase is LeasePhase.ENDED]
        return Recorded(publish=publish, ended=ended, refused=list(refused.values()))

    async def record_losses(self, losses: list[Loss], live_bytes: dict[int, int]) -> None:
        """Record that workers ended with these leases; `live_bytes` is how far each task had come."""

        def run(transaction: Transaction) -> None:
            for loss in losses:
                done = live_bytes.get(loss.lease.task_id, 0)
                self._guarded(transaction, loss.lease, lambda loss=loss, done=done: self._lose(transaction, loss, done))  # type: ignore[misc]

        try:
            await self._write(run)
        except InternalError as error:
            logger.error("a loss can't be recorded: %s", error, exc_info=error, extra={"event": "defect"})

    def _recorder(self, items: list[Admitted]) -> Callable[[Transaction], None]:
        def run(transaction: Transaction) -> None:
            self._answers.clear()
            self._received.clear()
            for is_of_many, group in itertools.groupby(items, lambda item: type(item.report) in _OF_MANY):
                if is_of_many:
                    self._deliver(transaction, list(group))
                    continue
                for item in group:
                    self._guarded(transaction, item.lease, lambda item=item: self._apply(transaction, item))  # type: ignore[misc]
            for (uid, status), count in self._answers.items():
                transaction.count_responses(uid, status, count)
            for uid, received_bytes in self._received.items():
                transaction.count_traffic(uid, received_bytes)

        return run

    async def _write(self, run: Callable[[Transaction], None]) -> None:
        while True:
            try:
                await self._store.write(run)
            except StoreUnusable as error:
                logger.error("%s; trying again", error, extra={"event": "store_unusable"})
                await asyncio.sleep(_STORE_RETRY_S)
            else:
                return

    @staticmethod
    def _guarded(transaction: Transaction, lease: Lease, work: Callable[[], None]) -> None:
        try:
            work()
        except (NoSuchTask, WrongState) as error:
            _log_late(lease.task_id, error)

    def _apply(self, transaction: Transaction, item: Admitted) -> None:
        lease, report = item.lease, item.report
        match report:
            case Started():
                self._started(transaction, lease, report)
            case Current():
                self._current(transaction, lease, report)
            case Failed():
                self._failed(transaction, lease, report)
            case Halted():
                self._halted(transaction, lease, report)
            case Returned():
                self._let_go(transaction, lease, {})
            case Note():
                transaction.note(lease.task_id, transaction.state_of(lease.task_id, None), report.text)
            case Discarded():
                transaction.forget_part(lease.task_id)
                self._lost_removals.pop(lease.task_id, None)
            case _:
                raise AssertionError(f"not recorded: {report.type}")

    def _started(self, transaction: Transaction, lease: Lease, report: Started) -> None:
        if transaction.state_of(lease.task_id, None) is TaskState.ENQUEUED:
            transaction.apply(lease.task_id, _start(lease))
        if report.part is None or report.name is None:
            return
        description = _description(report, report.bytes_done, report.bytes_total, None)
        if report.bytes_done > lease.bytes_before:
            # There is progress: of this attempt, or of one that nobody could report the end of (a crash). Where an end
            # is reported, that says whether anything is kept of it.
            description = dataclasses.replace(description, progressed=True)
        transaction.describe({lease.task_id: description})

    def _deliver(self, transaction: Transaction, items: list[Admitted]) -> None:
        """Record complete files, many at once: a task is among them once, since `publish` comes in between."""
        descriptions: dict[TaskId, Description] = {}
        finishes: list[Finish] = []
        for item in items:
            lease, report = item.lease, item.report
            if isinstance(report, Ready):
                size = lease.size_bytes = report.identity.size_bytes
                descriptions[lease.task_id] = _description(report, size, size, report.identity)
                self._count(lease, report.http_status, report.bytes_received)
            elif isinstance(report, Finished):
                finishes.append(_finish(lease, report))
        if descriptions:
            transaction.describe(descriptions)
        if finishes:
            for task_id, error in transaction.finish(finishes).items():
                _log_late(task_id, error)

    def _current(self, transaction: Transaction, lease: Lease, report: Current) -> None:
        self._count(lease, report.http_status, 0)
        self._apply_running(
            transaction,
            lease,
            Change(
                event=TaskEvent.FINISH,
                detail="the file is current: nothing newer is there",
                dest=report.dest,
                name=report.dest.rpartition("/")[2] or None,
                forget_part=True,
                bytes_done=report.size_bytes,
                bytes_total=report.size_bytes,
                http_status=report.http_status,
                streak=0,
            ),
        )

    def _failed(self, transaction: Transaction, lease: Lease, report: Failed) -> None:
        self._count(lease, report.http_status, report.bytes_received)
        kept: dict[str, Any] = {
            "bytes_done": report.bytes_done,
            "part": report.part,
            "forget_part": report.part is None,
            "http_status": report.http_status or None,
        }
        if self._outcome(transaction, lease) is not None:
            self._let_go(transaction, lease, kept)
            return
        attempt = Attempt(
            code=report.code,
            streak=lease.streak,
            progressed=report.bytes_done > lease.bytes_before,
            at=time.time(),
            stuck_since=lease.stuck_since,
            retry_after_s=report.retry_after_s,
        )
        self._give_up_or_retry(transaction, lease, attempt, report.message, TaskEvent.POSTPONE, kept)

    def _halted(self, transaction: Transaction, lease: Lease, report: Halted) -> None:
        if report.bytes_received:
            transaction.count_traffic(lease.uid, report.bytes_received)
        kept = {"bytes_done": report.bytes_done, "part": report.part, "forget_part": report.part is None}
        self._let_go(transaction, lease, kept)

    def _lose(self, transaction: Transaction, loss: Loss, bytes_done: int) -> None:
        lease = loss.lease
        if lease.phase is LeasePhase.DISCARDING:
            self._lost_removals[lease.task_id] += loss.blamed
            if loss.no_account or self._lost_removals[lease.task_id] >= _MOST_LOST_REMOVALS:  # never in a circle
                transaction.forget_part(lease.task_id)
                del self._lost_removals[lease.task_id]
            return
        if lease.phase is LeasePhase.STARTED and bytes_done > lease.bytes_before:
            # Its owner may end a worker whenever they like: what it has taken counts all the same.
            transaction.count_traffic(lease.uid, bytes_done - lease.bytes_before)
        if loss.no_account:
            error = TaskError(code=FailureCode.ACCOUNT, message=loss.reason)
            self._apply_running(transaction, lease, Change(event=TaskEvent.FAIL, error=error, detail=loss.reason))
        elif loss.blamed and self._outcome(transaction, lease) is None:
            attempt = Attempt(
                code=FailureCode.WORKER_LOST,
                streak=lease.streak,
                progressed=bytes_done > lease.bytes_before,
                at=time.time(),
                stuck_since=lease.stuck_since,
            )
            message = f"the worker was lost: {loss.reason}"
            self._give_up_or_retry(
                transaction, lease, attempt, message, TaskEvent.LOSE, {"bytes_done": bytes_done or None}
            )
        else:
            self._let_go(transaction, lease, {})

    def _give_up_or_retry(
        self,
        transaction: Transaction,
        lease: Lease,
        attempt: Attempt,
        message: str,
        retry_event: TaskEvent,
        kept: dict[str, Any],
    ) -> None:
        decision = decide(attempt, self.retry, random.random())  # noqa: S311 - only to spread retries
        error = TaskError(code=attempt.code.value, message=message)
        change = Change(
            event=TaskEvent.FAIL if decision.delay_s is None else retry_event,
            error=error,
            detail=message,
            streak=decision.streak,
            stuck_since=decision.stuck_since,
            retry_at=None if decision.delay_s is None else attempt.at + decision.delay_s,
            **kept,
        )
        self._apply_running(transaction, lease, change)
        if decision.delay_s is None:
            logger.info(
                "task %d failed: %s",
                lease.task_id,
                printable(message),
                extra={"event": "task_failed", "task_id": lease.task_id, "uid": lease.uid},
            )

    def _let_go(self, transaction: Transaction, lease: Lease, kept: dict[str, Any]) -> None:
        """A worker has let go of a task: do what its owner asked for, or queue it again."""
        state = transaction.state_of(lease.task_id, None)
        outcome = self._outcome(transaction, lease)
        if outcome is TaskEvent.CLEAR and state is TaskState.DOWNLOADING:
            # It began after all, before the order reached it: running downloads are not cleared.
            transaction.apply(lease.task_id, Change(event=TaskEvent.INTERRUPT, **kept))
        elif outcome is not None and outcome is not TaskEvent.INTERRUPT:
            transaction.apply(lease.task_id, Change(event=outcome, actor=lease.actor, **kept))
        elif state is TaskState.DOWNLOADING:
            transaction.apply(lease.task_id, Change(event=TaskEvent.INTERRUPT, detail=lease.why, **kept))

    @staticmethod
    def _outcome(transaction: Transaction, lease: Lease) -> TaskEvent | None:
        """Return what the owner has asked for meanwhile; the row knows before the lease does."""
        return lease.outcome or _OUTCOME_OF.get(transaction.want_of(lease.task_id))

    @staticmethod
    def _apply_running(transaction: Transaction, lease: Lease, change: Change) -> None:
        """Apply what happened to a running task; one that was too quick to be seen running was so for a moment."""
        if transaction.state_of(lease.task_id, None) is TaskState.ENQUEUED:
            transaction.apply(lease.task_id, _start(lease), change)
        else:
            transaction.apply(lease.task_id, change)

    def _count(self, lease: Lease, http_status: int | None, received_bytes: int) -> None:
        if http_status:
            self._answers[lease.uid, http_status] += 1
        if received_bytes:
            self._received[lease.uid] += received_bytes


def _log_late(task_id: TaskId, error: NoSuchTask | WrongState) -> None:
    extra = {"event": "report_late", "task_id": task_id}
    logger.warning("task %d: a report came too late: %s", task_id, error, extra=extra)


def _description(
    report: Started | Ready, bytes_done: int, bytes_total: int | None, identity: FileIdentity | None
) -> Description:
    return Description(
        name=report.name or "",
        part=report.part,
        bytes_done=bytes_done,
        bytes_total=bytes_total,
        http_status=report.http_status,
        identity=identity,
    )


def _finish(lease: Lease, report: Finished) -> Finish:
    detail = f"{report.dest}, {report.size_bytes} bytes" + (f", sha256 {report.sha256}" if report.sha256 else "")
    return Finish(
        task_id=lease.task_id,
        dest=report.dest,
        size_bytes=report.size_bytes,
        began_at=lease.assigned_at,
        detail=detail,
    )


def _start(lease: Lease) -> Change:
    return Change(event=TaskEvent.START, started_at=lease.assigned_at)
