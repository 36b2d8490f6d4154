"""One assignment's life in the worker: from the order to the report that ends it.

Runs as: the task's owner.  Talks to: the destination folder, a transfer, the sync thread, the report buffer.
WAITING -> TRANSFERRING -> SYNCING -> READY -> PUBLISHING -> ENDED; a failure or a halt leads from any of the first
four through SAVING (the part file's last checkpoint) to ENDED.
Invariants: exactly one report ends an assignment; `ready` is reported only of bytes that were verified and, with
`durable`, synced; after `published` the file counts as delivered whatever is ordered.
How it fails: every entry point catches everything; what is no TaskFailed or OSError is a defect and is logged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.worker_messages import (
    Assign,
    Failed,
    FileIdentity,
    Finished,
    Halted,
    Note,
    Progress,
    Ready,
    Report,
    Started,
    TransferSettings,
)
from autodl_lib.worker.connection import Connections
from autodl_lib.worker.control_file import ControlRecord, Ranges
from autodl_lib.worker.folder import Folder, Folders
from autodl_lib.worker.holding import Holding
from autodl_lib.worker.part_file import PartFile, discard_part
from autodl_lib.worker.reporting import ReportBuffer
from autodl_lib.worker.response import Accept, ResponseHead
from autodl_lib.worker.sources import Source
from autodl_lib.worker.sync_thread import SyncJob, SyncThread, write_range_back
from autodl_lib.worker.transfer import Job, Transfer
from autodl_lib.worker.verdicts import TaskFailed, Verdict, os_verdict

STARTED_AFTER_S = 0.05
PROGRESS_EVERY_S = 0.25
CHECKPOINT_EVERY_S = 2.0
_NEVER = float("inf")

logger = logging.getLogger(__name__)


class Phase(Enum):
    """How far an assignment is."""

    WAITING = "waiting"
    TRANSFERRING = "transferring"
    SYNCING = "syncing"
    READY = "ready"
    PUBLISHING = "publishing"
    SAVING = "saving"
    ENDED = "ended"


@dataclass(slots=True, kw_only=True)
class Facilities:
    """What the sessions of a worker share."""

    connections: Connections
    folders: Folders
    sync: SyncThread
    reports: ReportBuffer
    settings: TransferSettings


EndReport = Callable[[str | None, int], Report]
"""Makes the last report from the part file's name, None when it isn't kept, and the bytes in it."""


class Session:
    """One assignment."""

    def __init__(self, assign: Assign, facilities: Facilities) -> None:
        self.assign = assign
        self.phase = Phase.WAITING
        self.is_visible = False
        """Whether `started` was reported."""
        self.begun_mono = _NEVER
        self.wake_mono = _NEVER
        """When `tick` has something to do."""
        self._facilities = facilities
        self._settings = facilities.settings
        self._holding: Holding | None = None
        self._transfer: Transfer | None = None
        self._identity: FileIdentity | None = None
        self._halt: bool | None = None
        self._failed_source = 0
        self._checkpoint_runs = False
        self._next_progress_mono = 0.0
        self._next_checkpoint_mono = _NEVER
        self._last_progress: Progress | None = None

    # --- orders and time ---

    def begin(self) -> None:
        """Start the work."""
        self._guarded(self._begin)

    def tick(self, now: float) -> None:
        """Do what is due by time while the transfer runs."""
        if self.phase is Phase.TRANSFERRING and now >= self.wake_mono:
            self._guarded(lambda: self._tick(now))

    def publish(self) -> None:
        """Give the file its final name: the supervisor has the `ready` report on disk."""
        if self.phase is Phase.READY:
            self._guarded(self._publish)

    def halt(self, *, discard: bool) -> None:
        """Let go of the assignment, unless it is published or ending by itself."""
        if self.phase is Phase.SYNCING:
            self._halt = discard or bool(self._halt)
        elif self.phase in (Phase.WAITING, Phase.TRANSFERRING, Phase.READY):
            self._guarded(lambda: self._let_go(discard=discard, report=self._halted))

    def set_rate(self, limit_rate_bps: int) -> None:
        """Take at most so many bytes a second from now on; 0 is no limit."""
        self.assign = replace(self.assign, limit_rate_bps=limit_rate_bps)
        if self._transfer is not None and self.phase is Phase.TRANSFERRING:
            self._transfer.set_rate(limit_rate_bps)

    def grant(self, connections: tuple[int, ...]) -> None:
        """Use at most so many connections to each source from now on."""
        self.assign = replace(self.assign, connections=connections)
        if self._transfer is not None and self.phase is Phase.TRANSFERRING:
            self._transfer.grant(connections)

    def leave(self) -> None:
        """Keep what is worth keeping, at once and without a report: the supervisor is gone. The sync thread rests."""
        if (
            self.phase not in (Phase.TRANSFERRING, Phase.SYNCING, Phase.READY)
            or self._holding is None
            or self._holding.part is None
        ):
            return
        try:
            self._leave()
        except (OSError, ValueError) as error:
            logger.warning("a part file could not be saved", extra={"event": "part_lost", "reason": str(error)})

    # --- what the transfer asks and tells (transfer.TransferOwner) ---

    def open_part(self, accepted: Accept, head: ResponseHead | None, source: Source) -> PartFile:
        """Choose the name, claim the part file, or empty the one that can't be continued."""
        part = self._held().open_for(accepted, head, source.url)
        self.wake_mono = self.begun_mono + STARTED_AFTER_S
        return part

    def note(self, text: str) -> None:
        """Tell the task's history something."""
        self._facilities.reports.add(Note(lease=self.assign.lease, text=text))

    def write_back(self, offset: int, length: int) -> None:
        """See transfer.TransferOwner."""
        if self._settings.durable:
            fd = self._held().opened().fd
            self._facilities.sync.submit(SyncJob(run=lambda: write_range_back(fd, offset, length), done=_let_be))

    def unchanged(self, source: Source) -> None:
        """Let the file that is there be: nothing newer is at the source."""
        raise RuntimeError("what is newer was not asked for")

    def transfer_ended(self, failure: Verdict | None, source: int) -> None:
        """Go on with the complete file, or fail."""
        self._failed_source = source
        if failure is not None:
            self._guarded(lambda: self._fail(failure))
        else:
            self._guarded(self._complete)

    # --- the way to `ready` ---

    def _begin(self) -> None:
        self.begun_mono = time.monotonic()
        self._settings = self._facilities.settings
        folder = self._facilities.folders.open(self.assign.dir)
        holding = self._holding = Holding(self.assign, folder, self._settings)
        identity = self.assign.identity
        if identity is not None and holding.was_published(identity):
            dest = folder.join(holding.name)
            self._end(Finished(lease=self.assign.lease, dest=dest, size_bytes=identity.size_bytes))
            return
        if identity is not None and holding.take_up_complete(identity):
            self._sync()
            return
        record = holding.take_up_part()
        if holding.record is not None and holding.record.is_complete():
            self._sync()
            return
        holding.check_name()
        job = Job(
            urls=(self.assign.url, *self.assign.options.mirrors),
            granted=self.assign.connections,
            headers=self.assign.headers,
            limit_rate_bps=self.assign.limit_rate_bps,
            settings=self._settings,
            options=self.assign.options,
        )
        self._transfer = Transfer(job, self, self._facilities.connections)
        self.phase = Phase.TRANSFERRING
        self._next_checkpoint_mono = self.begun_mono + CHECKPOINT_EVERY_S
        if record is not None:
            self._transfer.start(record.ranges, record.version)
        else:
            self._transfer.start()
        self.wake_mono = self.begun_mono + STARTED_AFTER_S

    def _complete(self) -> None:
        holding = self._held()
        if self._transfer is None or holding.part is None:
            raise RuntimeError("a transfer ended well without a part file")
        holding.version = replace(holding.version, size=self._transfer.bytes_done())
        self._sync()

    def _sync(self) -> None:
        part = self._held().opened()
        self.phase = Phase.SYNCING
        if self._settings.durable or self._checkpoint_runs:
            run = part.sync if self._settings.durable else (lambda: None)
            sync = self._facilities.sync
            hand_over = sync.submit if self.is_visible else sync.hold
            hand_over(SyncJob(run=run, done=self._synced, fd=part.fd))
        else:
            self._synced(None)

    def _synced(self, error: OSError | None) -> None:
        self._guarded(lambda: self._after_sync(error))

    def _after_sync(self, error: OSError | None) -> None:
        if error is not None:
            raise error
        if self._halt is not None:
            self._let_go(discard=self._halt, report=self._halted)
            return
        self._identity = self._held().opened().identity()
        self.phase = Phase.READY
        self._report_ready()

    def _report_ready(self) -> None:
        assert self._identity is not None
        holding = self._held()
        self._facilities.reports.add(
            Ready(
                lease=self.assign.lease,
                dir=holding.folder.path,
                name=holding.name,
                part=holding.opened().name,
                identity=self._identity,
                http_status=self._status(),
                bytes_received=self._received(),
            )
        )

    # --- publishing ---

    def _publish(self) -> None:
        if self._held().publish():
            self.phase = Phase.PUBLISHING
        else:
            self._report_ready()

    def published_in(self) -> tuple[Folder, int]:
        """Return the folder that must be synced before `published`, and the file's descriptor."""
        holding = self._held()
        return holding.folder, holding.opened().fd

    def published(self, error: OSError | None) -> None:
        """Report the end: the folder is synced."""
        self._guarded(lambda: self._after_publish(error))

    def _after_publish(self, error: OSError | None) -> None:
        assert self._identity is not None
        holding = self._held()
        holding.opened().close()
        holding.part = None
        if error is not None:
            verdict = os_verdict(error, f"sync the folder {holding.folder.path}")
            self._end(self._failed(verdict)(None, 0))
            return
        dest = holding.folder.join(holding.name)
        self._end(Finished(lease=self.assign.lease, dest=dest, size_bytes=self._identity.size_bytes))

    # --- while it transfers ---

    def _tick(self, now: float) -> None:
        transfer = self._transfer
        assert transfer is not None
        transfer.check(now)
        if self.phase is not Phase.TRANSFERRING:
            return
        self.wake_mono = min(transfer.wake_mono(), self._next_checkpoint_mono)
        if now < self.begun_mono + STARTED_AFTER_S:
            self.wake_mono = min(self.wake_mono, self.begun_mono + STARTED_AFTER_S)
        elif transfer.ranges() is not None:
            self._show(now)
        if now >= self._next_checkpoint_mono:
            self._checkpoint(now)

    def _show(self, now: float) -> None:
        """Report `started` once, then `progress`."""
        assert self._transfer is not None
        if not self.is_visible:
            self._report_started()
            self._next_progress_mono = now + PROGRESS_EVERY_S
        elif now >= self._next_progress_mono:
            progress = Progress(
                lease=self.assign.lease,
                bytes_done=self._transfer.bytes_done(),
                bytes_total=self._held().version.size,
                speed_bps=self._transfer.speed_bps(now),
                connections=self._transfer.connection_count(),
            )
            if progress != self._last_progress:
                self._facilities.reports.add(progress)
            self._last_progress = progress
            self._next_progress_mono = now + PROGRESS_EVERY_S
        self.wake_mono = min(self.wake_mono, self._next_progress_mono)

    def _report_started(self) -> None:
        assert self._transfer is not None
        holding = self._held()
        self.is_visible = True
        self._facilities.reports.add(
            Started(
                lease=self.assign.lease,
                dir=holding.folder.path,
                name=holding.name,
                part=holding.opened().name,
                bytes_done=self._transfer.bytes_done(),
                bytes_total=self._held().version.size,
                http_status=self._status(),
            )
        )

    def _checkpoint(self, now: float) -> None:
        self._next_checkpoint_mono = now + CHECKPOINT_EVERY_S
        self.wake_mono = min(self.wake_mono, self._next_checkpoint_mono)
        assert self._transfer is not None
        ranges = self._transfer.ranges()
        if ranges is None or self._checkpoint_runs:
            return
        self._transfer.write_held()
        holding, ranges = self._held(), self._transfer.ranges()
        holding.check_space(0)
        if ranges is None or not holding.is_worth_keeping(ranges):
            return
        part, record, durable = holding.opened(), holding.record_of(ranges), self._settings.durable
        self._checkpoint_runs = True
        job = SyncJob(run=lambda: part.checkpoint(record, durable=durable), done=self._checkpointed)
        self._facilities.sync.submit(job)

    def _checkpointed(self, error: OSError | None) -> None:
        self._checkpoint_runs = False
        if error is not None and self.phase is Phase.TRANSFERRING:
            self._guarded(lambda: self._fail(os_verdict(error, "save the part file")))

    # --- the end ---

    def _fail(self, verdict: Verdict) -> None:
        self._let_go(discard=False, report=self._failed(verdict))

    def _let_go(self, *, discard: bool, report: EndReport) -> None:
        """Stop, keep or remove the part file, and report."""
        try:
            self._stop_transfer()
        except OSError:
            logger.info("the last bytes could not be written", extra={"event": "tail_lost"})
        holding = self._holding
        if holding is None or holding.part is None:
            self._let_go_unopened(discard=discard, report=report)
            return
        part, ranges = holding.part, self._ranges(holding)
        record = None
        if not discard and ranges is not None and part.is_in_place() and holding.is_worth_keeping(ranges):
            record = holding.record_of(ranges)
        elif not self._checkpoint_runs:
            self._save(part, None, report, None)
            return
        self.phase = Phase.SAVING
        durable = self._settings.durable
        run = (lambda: None) if record is None else (lambda: part.checkpoint(record, durable=durable))
        self._facilities.sync.submit(
            SyncJob(run=run, done=lambda error: self._guarded(lambda: self._save(part, record, report, error)))
        )

    def _let_go_unopened(self, *, discard: bool, report: EndReport) -> None:
        part = self.assign.part
        if discard and part is not None:
            try:
                folder = self._facilities.folders.open(self.assign.dir, create=False)
                discard_part(folder, part, self.assign.tag)
            except (TaskFailed, OSError) as error:
                logger.info("a part file could not be removed", extra={"event": "part_left", "reason": str(error)})
        self._end(report(None if discard else part, 0))

    def _save(self, part: PartFile, record: ControlRecord | None, report: EndReport, error: OSError | None) -> None:
        """Let go of the part file, whose last checkpoint is written, impossible or not wanted."""
        self._held().part = None
        kept = part.saved if record is not None else None
        if error is not None:
            logger.warning("a checkpoint failed", extra={"event": "checkpoint_failed", "reason": str(error)})
        if kept is None or not kept.ranges:
            part.remove()
            self._end(report(None, 0))
        else:
            part.close()
            self._end(report(part.name, kept.bytes_done()))

    def _end(self, report: Report) -> None:
        self.phase = Phase.ENDED
        self.wake_mono = _NEVER
        self._transfer = None
        self._facilities.reports.add(report)

    def _failed(self, verdict: Verdict) -> EndReport:
        received = self._received()
        return lambda part, bytes_done: Failed(
            lease=self.assign.lease,
            code=verdict.code,
            message=verdict.message,
            http_status=verdict.http_status,
            retry_after_s=verdict.retry_after_s,
            source=self._failed_source,
            bytes_done=bytes_done,
            bytes_received=received,
            part=part,
        )

    def _halted(self, part: str | None, bytes_done: int) -> Report:
        return Halted(lease=self.assign.lease, bytes_done=bytes_done, bytes_received=self._received(), part=part)

    def _leave(self) -> None:
        """Save the part file, or remove it, here and now."""
        self._stop_transfer()
        holding = self._held()
        part, ranges = holding.opened(), self._ranges(holding)
        if self.phase is not Phase.TRANSFERRING and not self.is_visible:
            return  # the supervisor knows it by its identity, or will forget it: no control file, no owner
        if ranges is not None and holding.is_worth_keeping(ranges):
            part.checkpoint(holding.record_of(ranges), durable=self._settings.durable)
        else:
            part.remove()

    # --- small questions ---

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do something that may fail this assignment, and only this one."""
        try:
            action()
        except TaskFailed as failure:
            self._fail_somehow(failure.verdict)
        except OSError as error:
            self._fail_somehow(os_verdict(error, f"save to {self.assign.dir}"))
        except Exception as error:
            logger.exception("an assignment met a defect", extra={"event": "defect", "task_id": self.assign.task_id})
            words = f"a defect of autodl: {type(error).__name__}"
            self._fail_somehow(Verdict(code=FailureCode.INTERNAL, message=words))

    def _fail_somehow(self, verdict: Verdict) -> None:
        if self.phase is Phase.ENDED:
            return
        try:
            self._fail(verdict)
        except Exception:
            logger.exception("a failure could not be handled", extra={"event": "defect"})
            self._end(self._failed(verdict)(None, 0))

    def _stop_transfer(self) -> None:
        if self._transfer is not None and self.phase is Phase.TRANSFERRING:
            self._transfer.stop()

    def _ranges(self, holding: Holding) -> Ranges | None:
        """Return what of the part file is good, None when nothing is known to be."""
        if self.phase in (Phase.SYNCING, Phase.READY):
            return ((0, holding.version.size),) if holding.version.size else ()
        ranges = self._transfer.ranges() if self._transfer is not None else None
        return ranges if ranges is not None or holding.record is None else holding.record.ranges

    def _held(self) -> Holding:
        if self._holding is None:
            raise RuntimeError("no folder is open")
        return self._holding

    def _status(self) -> int | None:
        return self._transfer.status if self._transfer is not None else None

    def _received(self) -> int:
        return self._transfer.received_bytes if self._transfer is not None else 0


def _let_be(_: OSError | None) -> None:
    """A write-back that did not begin is no failure: the sync at the end is what counts."""
