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
import os
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
from autodl_lib.worker.file_name import check_output, name_from_response
from autodl_lib.worker.folder import Folder, Folders
from autodl_lib.worker.part_file import (
    Claim,
    PartFile,
    check_not_taken,
    claim_part,
    discard_part,
    reopen_identical,
    reopen_part,
)
from autodl_lib.worker.publish import finish_published, place
from autodl_lib.worker.reporting import ReportBuffer
from autodl_lib.worker.response import Accept, RemoteVersion, ResponseHead, ResumePoint
from autodl_lib.worker.sync_thread import SyncJob, SyncThread
from autodl_lib.worker.transfer import Source, Transfer
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
        self._folder: Folder | None = None
        self._part: PartFile | None = None
        self._name = ""
        self._record: ControlRecord | None = None
        self._version = RemoteVersion(size=None, etag=None, last_modified=None)
        self._transfer: Transfer | None = None
        self._identity: FileIdentity | None = None
        self._halt: bool | None = None
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

    def leave(self) -> None:
        """Keep what is worth keeping, at once and without a report: the supervisor is gone. The sync thread rests."""
        part = self._part
        if part is None or self.phase in (Phase.PUBLISHING, Phase.SAVING, Phase.ENDED):
            return
        try:
            self._stop_transfer()
            ranges = self._ranges()
            complete = self.phase in (Phase.SYNCING, Phase.READY)
            if (self.is_visible and ranges is not None) if complete else self._is_worth_keeping(ranges):
                part.checkpoint(self._record_of(ranges or ()), durable=self._settings.durable)
            elif not complete and ranges is not None:
                part.remove()
        except (OSError, ValueError) as error:
            logger.warning("a part file could not be saved", extra={"event": "part_lost", "reason": str(error)})

    # --- what the transfer asks and tells (transfer.TransferOwner) ---

    def open_part(self, accepted: Accept, head: ResponseHead | None) -> PartFile:
        """Choose the name, claim the part file, or empty the one that can't be continued."""
        folder = self._open_folder()
        self._check_space(folder, (accepted.version.size or 0) - accepted.offset)
        if self._part is None:
            output = self.assign.output
            name = output if output is not None else name_from_response(self.assign.url, head)
            claim = Claim(name=name, on_conflict=self.assign.on_conflict, tag=self.assign.tag)
            self._name, self._part = claim_part(folder, claim)
        elif accepted.offset == 0:
            self._part.start_over(self._record_of(()), durable=self._settings.durable)
        self._version = accepted.version
        self.wake_mono = self.begun_mono + STARTED_AFTER_S
        return self._part

    def note(self, text: str) -> None:
        """Tell the task's history something."""
        self._facilities.reports.add(Note(lease=self.assign.lease, text=text))

    def transfer_ended(self, failure: Verdict | None) -> None:
        """Go on with the complete file, or fail."""
        if failure is not None:
            self._guarded(lambda: self._fail(failure))
        else:
            self._guarded(self._complete)

    # --- the way to `ready` ---

    def _begin(self) -> None:
        self.begun_mono = time.monotonic()
        self._settings = self._facilities.settings
        self._folder = self._facilities.folders.open(self.assign.dir)
        if self.assign.output is not None:
            check_output(self.assign.output)
        if self.assign.identity is not None and self._recover(self._folder, self.assign.identity):
            return
        asked = self._reopen(self._folder)
        if self._record is not None and self._record.is_complete():
            self._sync()
            return
        known = self._name or self.assign.output
        if known:
            claim = Claim(name=known, on_conflict=self.assign.on_conflict, tag=self.assign.tag)
            check_not_taken(self._folder, claim)
        source = Source(
            url=self.assign.url,
            headers=self.assign.headers,
            limit_rate_bps=self.assign.limit_rate_bps,
            settings=self._settings,
        )
        self._transfer = Transfer(source, self, self._facilities.connections)
        self.phase = Phase.TRANSFERRING
        self._next_checkpoint_mono = self.begun_mono + CHECKPOINT_EVERY_S
        self._transfer.start(asked)
        self.wake_mono = self.begun_mono + STARTED_AFTER_S

    def _recover(self, folder: Folder, identity: FileIdentity) -> bool:
        """Take up an attempt that had leave to publish; False when nothing of it is there."""
        name, part = self.assign.name, self.assign.part
        if name is None:
            return False
        check_output(name)
        if finish_published(folder, name, part, identity):
            dest = folder.join(name)
            self._end(Finished(lease=self.assign.lease, dest=dest, size_bytes=identity.size_bytes))
            return True
        self._part = reopen_identical(folder, part, identity) if part is not None else None
        if self._part is None:
            return False
        self._name = name
        self._version = RemoteVersion(size=identity.size_bytes, etag=None, last_modified=None)
        self._sync()
        return True

    def _reopen(self, folder: Folder) -> ResumePoint | None:
        """Open the part file of an earlier attempt; returns what to ask for if it can be continued."""
        name, part_name = self.assign.name, self.assign.part
        if part_name is None or name is None:
            return None
        found = reopen_part(folder, part_name, self.assign.tag)
        if found is None:
            return None
        self._part, self._record = found
        self._name = check_output(name)
        self._version = self._record.version
        done = self._record.bytes_done()
        if not self._is_worth_keeping(self._record.ranges) or self._record.ranges[0][0] != 0:
            self._record = None
            return None
        return ResumePoint(offset=done, version=self._version)

    def _complete(self) -> None:
        assert self._transfer is not None
        if self._part is None:
            raise RuntimeError("a transfer ended well without a part file")
        self._version = replace(self._version, size=self._transfer.bytes_done())
        self._sync()

    def _sync(self) -> None:
        part = self._part
        assert part is not None
        self.phase = Phase.SYNCING
        if self._settings.durable or self._checkpoint_runs:
            run = (lambda: os.fsync(part.fd)) if self._settings.durable else (lambda: None)
            self._facilities.sync.submit(SyncJob(run=run, done=self._synced, fd=part.fd))
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
        assert self._part is not None
        self._identity = self._part.identity()
        self.phase = Phase.READY
        self._report_ready()

    def _report_ready(self) -> None:
        assert self._part is not None
        assert self._identity is not None
        self._facilities.reports.add(
            Ready(
                lease=self.assign.lease,
                dir=self._part.folder.path,
                name=self._name,
                part=self._part.name,
                identity=self._identity,
                http_status=self._status(),
                bytes_received=self._received(),
            )
        )

    # --- publishing ---

    def _publish(self) -> None:
        assert self._part is not None
        next_name = place(self._part, self._name, self.assign.on_conflict)
        if next_name is not None:
            self._name = next_name
            self._report_ready()
            return
        self.phase = Phase.PUBLISHING

    def published_in(self) -> tuple[Folder, int]:
        """Return the folder that must be synced before `published`, and the file's descriptor."""
        assert self._part is not None
        return self._part.folder, self._part.fd

    def published(self, error: OSError | None) -> None:
        """Report the end: the folder is synced."""
        self._guarded(lambda: self._after_publish(error))

    def _after_publish(self, error: OSError | None) -> None:
        assert self._part is not None
        assert self._identity is not None
        self._part.close()
        if error is not None:
            verdict = os_verdict(error, f"sync the folder {self._part.folder.path}")
            self._part = None
            self._end(self._failed(verdict)(None, 0))
            return
        dest = self._part.folder.join(self._name)
        self._end(Finished(lease=self.assign.lease, dest=dest, size_bytes=self._identity.size_bytes))

    # --- while it transfers ---

    def _tick(self, now: float) -> None:
        transfer = self._transfer
        assert transfer is not None
        transfer.check(now)
        if self.phase is not Phase.TRANSFERRING:
            return
        self.wake_mono = min(transfer.stall_mono(), self._next_checkpoint_mono)
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
                bytes_total=self._version.size,
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
        assert self._part is not None
        self.is_visible = True
        self._facilities.reports.add(
            Started(
                lease=self.assign.lease,
                dir=self._part.folder.path,
                name=self._name,
                part=self._part.name,
                bytes_done=self._transfer.bytes_done(),
                bytes_total=self._version.size,
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
        part, ranges = self._part, self._transfer.ranges()
        assert part is not None
        self._check_space(part.folder, 0)
        if not self._is_worth_keeping(ranges):
            return
        record, durable = self._record_of(ranges or ()), self._settings.durable
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
        if self._part is None:
            self._let_go_unopened(discard=discard, report=report)
            return
        part, ranges = self._part, self._ranges()
        kept = None if discard or not part.is_in_place() or not self._is_worth_keeping(ranges) else ranges or ()
        if kept is None and not self._checkpoint_runs:
            self._save(part, None, report, None)
            return
        self.phase = Phase.SAVING
        record = None if kept is None else self._record_of(kept)
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
        """Let go of the part file, whose last checkpoint is written or not wanted."""
        self._part = None
        if record is None or error is not None:
            part.remove()
            self._end(report(None, 0))
        else:
            part.close()
            self._end(report(part.name, record.bytes_done()))

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
            bytes_done=bytes_done,
            bytes_received=received,
            part=part,
        )

    def _halted(self, part: str | None, bytes_done: int) -> Report:
        return Halted(lease=self.assign.lease, bytes_done=bytes_done, bytes_received=self._received(), part=part)

    # --- small questions ---

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do something that may fail this assignment, and only this one."""
        try:
            action()
        except TaskFailed as failure:
            self._fail_somehow(failure.verdict)
        except OSError as error:
            self._fail_somehow(os_verdict(error, f"save to {self._folder.path if self._folder else self.assign.dir}"))
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

    def _ranges(self) -> Ranges | None:
        """Return what of the part file is good, None when nothing was changed since it was opened."""
        if self.phase in (Phase.SYNCING, Phase.READY):
            return ((0, self._version.size),) if self._version.size else ()
        ranges = self._transfer.ranges() if self._transfer is not None else None
        return ranges if ranges is not None or self._record is None else self._record.ranges

    def _is_worth_keeping(self, ranges: Ranges | None) -> bool:
        if not ranges:
            return False
        by_size = self.assign.url[:4].lower() != "http" and self._version.size is not None
        return self._version.has_validator() or by_size or self._record_of(ranges).is_complete()

    def _record_of(self, ranges: Ranges) -> ControlRecord:
        return ControlRecord(tag=self.assign.tag, version=self._version, ranges=ranges)

    def _open_folder(self) -> Folder:
        if self._folder is None:
            raise RuntimeError("no folder is open")
        return self._folder

    def _check_space(self, folder: Folder, needed: int) -> None:
        free = folder.free_bytes()
        if free - needed < self._settings.min_free_bytes:
            words = f"too little space in {folder.path}: {free} bytes are free, {max(needed, 0)} more are needed"
            words += f", and {self._settings.min_free_bytes} must stay free"
            raise TaskFailed(FailureCode.DISK_FULL, words)

    def _status(self) -> int | None:
        return self._transfer.status if self._transfer is not None else None

    def _received(self) -> int:
        return self._transfer.received_bytes if self._transfer is not None else 0
