"""One assignment's life in the worker: from the order to the report that ends it.

Runs as: the task's owner.  Talks to: the destination folder, a transfer, the sync thread, the report buffer.
WAITING -> PREPARING -> ADOPTING -> TRANSFERRING -> CHECKING -> SYNCING -> READY -> PUBLISHING -> ENDED, where most
tasks need neither preparing nor adopting nor checking, and a check that fails may lead back to TRANSFERRING. A failure
or a halt leads from any of them up to READY through SAVING (the part file's last checkpoint) to ENDED.
Invariants: exactly one report ends an assignment; `ready` is reported only of bytes that were verified and, with
`durable`, synced; after `published` the file counts as delivered whatever is ordered.
How it fails: every entry point catches everything; what is no TaskFailed or OSError is a defect and is logged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from enum import Enum

from autodl_lib.contract.checksums import Checksum
from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.worker_messages import (
    Assign,
    Current,
    Failed,
    FileIdentity,
    Finished,
    Halted,
    Note,
    Ready,
    Report,
)
from autodl_lib.worker.byte_ranges import ByteRanges
from autodl_lib.worker.checking import Expectation, Verification, expectation, names_of, promised_by
from autodl_lib.worker.conditions import with_conditions
from autodl_lib.worker.control_file import ControlRecord, Ranges
from autodl_lib.worker.file_name import check_output
from autodl_lib.worker.folder import Folder
from autodl_lib.worker.foreign_part import CopyJob
from autodl_lib.worker.holding import Holding
from autodl_lib.worker.part_file import PartFile, discard_part
from autodl_lib.worker.preallocation import preallocate
from autodl_lib.worker.preparation import Preparation, Prepared
from autodl_lib.worker.pulse import Facilities, Pulse
from autodl_lib.worker.response import Accept, ResponseHead
from autodl_lib.worker.sources import Source
from autodl_lib.worker.sync_thread import SyncJob, write_range_back
from autodl_lib.worker.transfer import Job, Transfer
from autodl_lib.worker.verdicts import TaskFailed, Verdict, os_verdict

_RESERVED_FROM_BYTES = 8 * 1024 * 1024
_MOST_ROUNDS = 3
"""So often, pieces whose checksum is wrong are fetched again."""

_NEVER = float("inf")

logger = logging.getLogger(__name__)


class Phase(Enum):
    """How far an assignment is."""

    WAITING = "waiting"
    PREPARING = "preparing"
    ADOPTING = "adopting"
    TRANSFERRING = "transferring"
    CHECKING = "checking"
    SYNCING = "syncing"
    READY = "ready"
    PUBLISHING = "publishing"
    SAVING = "saving"
    ENDED = "ended"


EndReport = Callable[[str | None, int], Report]
"""Makes the last report from the part file's name, None when it isn't kept, and the bytes in it."""


class Session:
    """One assignment."""

    def __init__(self, assign: Assign, facilities: Facilities) -> None:
        self.assign = assign
        self.phase = Phase.WAITING
        self.begun_mono = _NEVER
        self.wake_mono = _NEVER
        """When `tick` has something to do."""
        self._facilities = facilities
        self._settings = facilities.settings
        self._holding: Holding | None = None
        self._preparation: Preparation | None = None
        self._prepared = Prepared()
        self._pulse: Pulse | None = None
        self._transfer: Transfer | None = None
        self._promised: tuple[Checksum, ...] = ()
        self._newer_than: str | None = None
        self._was_visible = False
        self._rounds = 0
        self._received_before = 0
        self._identity: FileIdentity | None = None
        self._is_spoilt = False
        """Whether the part file's bytes are known to be wrong."""
        self._halt: bool | None = None
        self._failed_source = 0

    @property
    def is_visible(self) -> bool:
        """Whether `started` was reported."""
        return self._was_visible or (self._pulse is not None and self._pulse.is_visible)

    # --- orders and time ---

    def begin(self) -> None:
        """Start the work."""
        self._guarded(self._begin)

    def tick(self, now: float) -> None:
        """Do what is due by time."""
        if self.phase is Phase.PREPARING:
            self._guarded(lambda: self._tick_preparing(now))
        elif self.phase is Phase.TRANSFERRING and now >= self.wake_mono:
            self._guarded(lambda: self._tick(now))

    def publish(self) -> None:
        """Give the file its final name: the supervisor has the `ready` report on disk."""
        if self.phase is Phase.READY:
            self._guarded(self._publish)

    def halt(self, *, discard: bool) -> None:
        """Let go of the assignment, unless it is published or ending by itself."""
        if self.phase in (Phase.ADOPTING, Phase.CHECKING, Phase.SYNCING):
            self._halt = discard or bool(self._halt)
        elif self.phase in (Phase.WAITING, Phase.PREPARING, Phase.TRANSFERRING, Phase.READY):
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
            self.phase not in (Phase.TRANSFERRING, Phase.CHECKING, Phase.SYNCING, Phase.READY)
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
        holding = self._held()
        is_new = holding.part is None
        part = holding.open_for(accepted, head, source.url)
        if not accepted.is_part or is_new:
            self._promised = promised_by(head)
        self._reserve(part, accepted)
        if self._pulse is not None:
            self._pulse.look_soon()
        self.wake_mono = 0.0
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
        holding = self._held()
        if holding.part is not None:
            holding.part.remove()
            holding.part = None
        name = check_output(self.assign.output or "")
        dest, size = holding.folder.join(name), holding.folder.size_of(name)
        self._end(Current(lease=self.assign.lease, dest=dest, size_bytes=size, http_status=self._status()))

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
        self.assign, self._newer_than = with_conditions(self.assign, folder)
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
        if record is None or not record.is_complete():
            holding.check_name()
        adopt = holding.part is None
        preparation = Preparation(self.assign, self._settings, adopt=adopt, done=self._prepared_for(record))
        if preparation.is_needed():
            self._preparation = preparation
            self.phase = Phase.PREPARING
            preparation.start(self._facilities.connections)
        else:
            self._start(record)

    def _prepared_for(self, record: ControlRecord | None) -> Callable[[Prepared | Verdict], None]:
        def done(result: Prepared | Verdict) -> None:
            self._preparation = None
            if isinstance(result, Prepared):
                self._guarded(lambda: self._after_preparing(result, record))
            else:
                self._guarded(lambda: self._fail(result))

        return done

    def _after_preparing(self, prepared: Prepared, record: ControlRecord | None) -> None:
        self._prepared = prepared
        if prepared.note is not None:
            self.note(prepared.note)
        if prepared.adopted is None:
            self._start(record)
            return
        adopted, tail = prepared.adopted, CopyJob()
        part = self._held().adopt(adopted)

        def copied(error: OSError | None) -> None:
            adopted.foreign.close()
            if error is not None:
                self._guarded(lambda: self._fail(os_verdict(error, f"copy {adopted.foreign.path}")))
            elif self._halt is not None:
                self._guarded(lambda: self._let_go(discard=True, report=self._halted))
            else:
                self._guarded(lambda: self._start(self._held().adopted(adopted, tail.copied_bytes)))

        self.phase = Phase.ADOPTING
        run = tail.of(part.fd, adopted.foreign)
        self._facilities.sync.submit(SyncJob(run=run, done=copied))

    def _start(self, record: ControlRecord | None) -> None:
        """Begin the transfer of what `record` lacks, or go on when it lacks nothing."""
        holding = self._held()
        if record is not None and record.is_complete():
            self._check()
            return
        self._pulse = Pulse(self.assign.lease, holding, self._facilities, self._checkpoint_failed)
        self._begin_transfer(self._job(), record)

    def _job(self) -> Job:
        assign = self.assign
        return Job(
            urls=(assign.url, *assign.options.mirrors),
            granted=assign.connections,
            headers=assign.headers,
            limit_rate_bps=assign.limit_rate_bps,
            settings=self._settings,
            options=assign.options,
            newer_than=self._newer_than if self._held().part is None else None,
        )

    def _begin_transfer(self, job: Job, record: ControlRecord | None) -> None:
        self._received_before = self._received()
        self._transfer = Transfer(job, self, self._facilities.connections)
        self.phase = Phase.TRANSFERRING
        if record is not None:
            self._transfer.start(record.ranges, record.version)
        else:
            self._transfer.start()
        if self._pulse is not None:
            self._pulse.look_soon()
        self.wake_mono = 0.0

    def _reserve(self, part: PartFile, accepted: Accept) -> None:
        """Reserve the disk space of a large file; the transfer does not wait for it."""
        size = accepted.version.size or 0
        if size < _RESERVED_FROM_BYTES or accepted.is_part:
            return
        fd = part.fd
        self._facilities.sync.submit(SyncJob(run=lambda: preallocate(fd, 0, size), done=self._reserved))

    def _reserved(self, error: OSError | None) -> None:
        if error is not None and self.phase is Phase.TRANSFERRING:
            self._guarded(lambda: self._fail(os_verdict(error, f"reserve space in {self._held().folder.path}")))

    def _complete(self) -> None:
        holding = self._held()
        if self._transfer is None or holding.part is None:
            raise RuntimeError("a transfer ended well without a part file")
        size = self._transfer.bytes_done()
        holding.version = replace(holding.version, size=size)
        expected = self.assign.options.size_bytes
        if expected is not None and size != expected:
            self._is_spoilt = True
            raise TaskFailed(FailureCode.CHECKSUM, f"the file has {size} bytes, and should have {expected}")
        self._check()

    def _check(self) -> None:
        """Compare the complete part file with what is known of the file, where anything is."""
        holding = self._held()
        names = names_of((self.assign.url, *self.assign.options.mirrors), self.assign.output)
        if not self._prepared.lists and not self.assign.options.checksums and not self.assign.options.pieces:
            expected = Expectation(checksums=self._promised, pieces=None)
        else:
            lists, promised = self._prepared.lists, self._promised
            expected = expectation(self.assign.options, lists, [*names, holding.name], promised)
        if expected.is_empty():
            self._sync()
            return
        self.phase = Phase.CHECKING
        part, size = holding.opened(), holding.version.size or 0
        look = Verification(part.fd, size, expected, lambda: self._halt is not None)
        self._facilities.sync.submit(SyncJob(run=look.run, done=lambda error: self._checked(look, expected, error)))

    def _checked(self, look: Verification, expected: Expectation, error: OSError | None) -> None:
        if error is not None:
            self._guarded(lambda: self._fail(os_verdict(error, "read the part file")))
        else:
            self._guarded(lambda: self._after_check(look, expected))

    def _after_check(self, look: Verification, expected: Expectation) -> None:
        if self._halt is not None:
            self._let_go(discard=self._halt, report=self._halted)
            return
        if look.failure is not None:
            self._fail(look.failure)
        elif look.findings is None or look.findings.complaint is None:
            if self.assign.options.checksums or self.assign.options.pieces:
                self.note(f"verified: {expected.words()}")
            self._sync()
        else:
            self._fetch_again(look.findings.bad_pieces, look.findings.complaint)

    def _fetch_again(self, bad_pieces: Ranges, complaint: str) -> None:
        """Fetch again what is wrong, with other means than before; give up when there are none left."""
        self._rounds += 1
        holding, job = self._held(), self._job()
        size = holding.version.size or 0
        was_assembled = self._transfer is None or self._transfer.was_assembled
        if bad_pieces and self._rounds <= _MOST_ROUNDS:
            good = ByteRanges(((0, size),))
            for start, end in bad_pieces:
                good.remove(start, end)
            self.note(f"{complaint}; fetching that again")
            holding.record = holding.record_of(good.ranges())
            again = holding.record if good.ranges() else None
            self._begin_transfer(replace(job, preferred=self._rounds), again)
        elif (was_assembled or len(job.urls) > self._rounds) and self._rounds <= max(1, len(job.urls)):
            self.note(f"{complaint}; starting over with one connection")
            self._begin_transfer(replace(job, is_plain=True, preferred=self._rounds - was_assembled), None)
        else:
            self._is_spoilt = True
            self._fail(Verdict(code=FailureCode.CHECKSUM, message=complaint))

    def _sync(self) -> None:
        part = self._held().opened()
        if self.assign.options.remote_time:
            part.set_time(self._held().version.last_modified)
        self.phase = Phase.SYNCING
        if self._settings.durable or self._checkpoint_runs():
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

    def _tick_preparing(self, now: float) -> None:
        if self._preparation is not None:
            self._preparation.check(now)
        if self._preparation is not None:
            self.wake_mono = self._preparation.wake_mono()

    def _tick(self, now: float) -> None:
        transfer, pulse = self._transfer, self._pulse
        if transfer is None or pulse is None:
            raise RuntimeError("no transfer is under way")
        transfer.check(now)
        if self.phase is not Phase.TRANSFERRING or transfer is not self._transfer:
            return
        if now >= pulse.wake_mono:
            pulse.beat(transfer, now)
        self.wake_mono = min(transfer.wake_mono(), pulse.wake_mono)

    def _checkpoint_failed(self, verdict: Verdict) -> None:
        if self.phase is Phase.TRANSFERRING:
            self._guarded(lambda: self._fail(verdict))

    def _checkpoint_runs(self) -> bool:
        return self._pulse is not None and self._pulse.checkpoint_runs

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
        is_wanted = not discard and not self._is_spoilt
        if is_wanted and ranges is not None and part.is_in_place() and holding.is_worth_keeping(ranges):
            record = holding.record_of(ranges)
        elif not self._checkpoint_runs():
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
        self._was_visible = self.is_visible
        self._transfer = self._pulse = self._holding = None  # they know this session: the folder is let go of now
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
        if self._preparation is not None:
            self._preparation.stop()
            self._preparation = None
        if self._transfer is not None and self.phase is Phase.TRANSFERRING:
            self._transfer.stop()

    def _ranges(self, holding: Holding) -> Ranges | None:
        """Return what of the part file is good, None when nothing is known to be."""
        if self.phase in (Phase.CHECKING, Phase.SYNCING, Phase.READY):
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
        return self._received_before + (self._transfer.received_bytes if self._transfer is not None else 0)


def _let_be(_: OSError | None) -> None:
    """A write-back that did not begin is no failure: the sync at the end is what counts."""
