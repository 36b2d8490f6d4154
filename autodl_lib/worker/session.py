"""One assignment's life in the worker: from the order to the report that ends it.

Runs as: the task's owner.  Talks to: the destination folder, its fetching, the sync thread, the report buffer.
Its phases are in `phase`. Preparation and adoption come first where the task needs them, fetching brings the part file,
checks say whether it is right, delivery names it, letting_go ends what does not come so far.
Invariants: exactly one report ends an assignment; `ready` is reported only of bytes that were verified and, with
`durable`, synced; after `published` the file counts as delivered whatever is ordered.
How it fails: every entry point catches everything; what is no TaskFailed or OSError is a defect and is logged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.worker_messages import Assign, Current, Finished, Note, Report, Returned
from autodl_lib.worker import letting_go
from autodl_lib.worker.adoption import adopt
from autodl_lib.worker.checks import Checks, FetchAgain, LetPass, Outcome, Reject
from autodl_lib.worker.delivery import Delivery
from autodl_lib.worker.disk_jobs import DiskJobs
from autodl_lib.worker.fetching import Fetching, Tally
from autodl_lib.worker.files.checking import Expectation, Verification
from autodl_lib.worker.files.conditions import with_conditions
from autodl_lib.worker.files.control_file import ControlRecord, Ranges
from autodl_lib.worker.files.file_name import check_output
from autodl_lib.worker.files.folder import Folder, OtherFolder
from autodl_lib.worker.holding import Holding
from autodl_lib.worker.letting_go import Kept
from autodl_lib.worker.network.verdicts import TaskFailed, Verdict, os_verdict, with_status
from autodl_lib.worker.phase import HALTS_AT_ONCE, HALTS_LATER, IS_COMPLETE, MAY_HOLD_BYTES, Phase
from autodl_lib.worker.preparation import Preparation, Prepared, needs_preparation
from autodl_lib.worker.pulse import Facilities
from autodl_lib.worker.transfer.defects import verdict_of
from autodl_lib.worker.transfer.transfer import Transfer

_NEVER = float("inf")

logger = logging.getLogger(__name__)


class Session:
    """One assignment."""

    def __init__(self, assign: Assign, facilities: Facilities) -> None:
        self.assign = assign
        self.phase = Phase.WAITING
        self.begun_mono = _NEVER
        self._facilities = facilities
        self._settings = facilities.settings
        self._jobs = DiskJobs(facilities.sync)
        self._checks = Checks(assign)
        self._holding: Holding | None = None
        self._preparation: Preparation | None = None
        self._fetching: Fetching | None = None
        self._delivery: Delivery | None = None
        self._newer_than: str | None = None
        self._was_visible = False
        self._is_spoilt = False
        """Whether the part file's bytes are known to be wrong."""
        self._halt: bool | None = None
        """An order that came at a bad time: whether to discard the part file."""

    @property
    def is_visible(self) -> bool:
        """Whether `started` was reported."""
        return self._was_visible or (self._fetching is not None and self._fetching.is_visible())

    @property
    def wake_mono(self) -> float:
        """When `tick` has something to do."""
        timed = self._preparation or self._fetching
        return _NEVER if timed is None else timed.wake_mono()

    # --- orders and time ---

    def begin(self) -> None:
        """Start the work."""
        self._guarded(self._begin)

    def tick(self, now: float) -> None:
        """Do what is due by time."""
        if now < self.wake_mono:
            return
        timed = self._preparation or self._fetching
        if timed is not None:
            self._guarded(lambda: timed.check(now))

    def publish(self) -> None:
        """Give the file its final name: the supervisor has the `ready` report on disk."""
        if self.phase is Phase.READY:
            self._guarded(self._publish)

    def halt(self, *, discard: bool) -> None:
        """Let go of the assignment, unless it is published or ending by itself."""
        if self.phase in HALTS_LATER:
            self._halt = discard or bool(self._halt)
        elif self.phase in HALTS_AT_ONCE:
            self._guarded(lambda: self._let_go(discard=discard, report=self._halted))

    def set_rate(self, limit_rate_bps: int) -> None:
        """Take at most so many bytes a second from now on; 0 is no limit."""
        self.assign = replace(self.assign, limit_rate_bps=limit_rate_bps)
        if self._fetching is not None:
            self._fetching.set_rate(limit_rate_bps)

    def grant(self, connections: tuple[int, ...]) -> None:
        """Use at most so many connections to each source from now on."""
        self.assign = replace(self.assign, connections=connections)
        if self._fetching is not None:
            self._fetching.grant(connections)

    def leave(self) -> None:
        """Keep what is worth keeping, at once and without a report: the supervisor is gone. The sync thread rests."""
        holding = self._holding
        if self.phase not in MAY_HOLD_BYTES or holding is None or holding.part is None:
            return
        is_told = self._fetching is not None and self._fetching.is_part_told()
        if self.phase in IS_COMPLETE and not is_told:
            return  # the supervisor knows it by its identity, or will forget it: no control file, no owner
        self._stop()
        is_known = is_told or holding.part.name == self.assign.part  # what is not has no way back
        try:
            letting_go.leave(holding, self._ranges(holding) if is_known else None, durable=self._settings.durable)
        except (OSError, ValueError) as error:
            logger.warning("a part file could not be saved", extra={"event": "part_lost", "reason": str(error)})

    def go_on_with_request(self, folder: Folder, begun_mono: float) -> Transfer:
        """Return the transfer that takes over a request for the whole file: the work was started then, elsewhere."""
        self.begun_mono = begun_mono
        self._settings = self._facilities.settings
        self.phase = Phase.TRANSFERRING
        return self._open_in(folder).go_on_with_request(begun_mono)

    # --- from the order to the transfer ---

    def _begin(self) -> None:
        self.begun_mono = time.monotonic()
        self._settings = self._facilities.settings
        try:
            folder = self._facilities.folders.open(self.assign.dir)
        except OtherFolder:
            self._end(Returned(lease=self.assign.lease))
            return
        self.assign, self._newer_than = with_conditions(self.assign, folder)
        self._open_in(folder)
        holding = self._held()
        identity = self.assign.identity
        if identity is not None and holding.was_published(identity):
            dest = folder.join(holding.name)
            self._end(Finished(lease=self.assign.lease, dest=dest, size_bytes=identity.size_bytes))
        elif identity is not None and holding.take_up_complete(identity):
            self._sync()
        else:
            self._prepare(holding)

    def _open_in(self, folder: Folder) -> Fetching:
        holding = self._holding = Holding(self.assign, folder, self._settings)
        fetching = self._fetching = Fetching(self.assign, holding, self._facilities, self._jobs, self)
        return fetching

    def _prepare(self, holding: Holding) -> None:
        record = holding.take_up_part()
        if record is None or not record.is_complete():
            holding.check_name()
        is_adopting = holding.part is None
        if not needs_preparation(self.assign, adopt=is_adopting):
            self._start(record)
            return
        done = self._prepared_for(record)
        preparation = self._preparation = Preparation(self.assign, self._settings, adopt=is_adopting, done=done)
        self.phase = Phase.PREPARING
        preparation.start(self._facilities.connections)

    def _prepared_for(self, record: ControlRecord | None) -> Callable[[Prepared | Verdict], None]:
        def done(result: Prepared | Verdict) -> None:
            self._preparation = None
            if isinstance(result, Prepared):
                self._guarded(lambda: self._after_preparing(result, record))
            else:
                self._guarded(lambda: self._fail(result))

        return done

    def _after_preparing(self, prepared: Prepared, record: ControlRecord | None) -> None:
        self._checks.take_lists(prepared.lists)
        if prepared.note is not None:
            self.note(prepared.note)
        if prepared.adopted is None:
            self._start(record)
            return
        self.phase = Phase.ADOPTING
        adopt(prepared.adopted, self._held(), self._jobs, lambda result: self._guarded(lambda: self._adopted(result)))

    def _adopted(self, result: ControlRecord | Verdict | None) -> None:
        if isinstance(result, Verdict):
            self._fail(result)
        elif self._halt is not None:
            self._let_go(discard=True, report=self._halted)
        else:
            self._start(result)

    def _start(self, record: ControlRecord | None) -> None:
        """Fetch what `record` lacks, or go on when it lacks nothing."""
        if record is not None and record.is_complete():
            self._check()
        else:
            self.phase = Phase.TRANSFERRING
            self._fetched_by().begin(record, self._newer_than)

    # --- what the fetching tells (fetching.FetchingOwner) ---

    def note(self, text: str) -> None:
        """Tell the task's history something."""
        self._facilities.reports.add(Note(lease=self.assign.lease, text=text))

    def fetched(self) -> None:
        """Go on with the complete part file."""
        self._guarded(self._complete)

    def fetching_failed(self, verdict: Verdict) -> None:
        """Fail."""
        self._guarded(lambda: self._fail(verdict))

    def is_current(self) -> None:
        """Let the file that is there be: nothing newer is at the source."""
        self._guarded(lambda: self._let_go(discard=True, report=self._current))

    # --- from the complete part file to `ready` ---

    def _complete(self) -> None:
        holding, size = self._held(), self._fetched_by().bytes_done()
        if holding.version.size != size:
            holding.version = replace(holding.version, size=size)
        complaint = self._checks.size_complaint(size)
        if complaint is not None:
            self._reject(complaint)
        else:
            self._check()

    def _check(self) -> None:
        """Compare the complete part file with what is known of the file, where anything is."""
        holding = self._held()
        expected = self._checks.expected(self.assign.output, holding.name, self._fetched_by().head)
        if expected.is_empty():
            self._sync()
            return
        self.phase = Phase.CHECKING
        size = holding.version.size or 0
        look = Verification(holding.opened().fd, size, expected, lambda: self._halt is not None)
        self._jobs.submit(look.run, lambda error: self._guarded(lambda: self._checked(look, expected, error)))

    def _checked(self, look: Verification, expected: Expectation, error: OSError | None) -> None:
        if error is not None:
            self._fail(os_verdict(error, "read the part file"))
        elif self._halt is not None:
            self._let_go(discard=self._halt, report=self._halted)
        elif look.findings is None:
            stopped = Verdict(code=FailureCode.INTERNAL, message="a defect of autodl: a check ended without findings")
            self._fail(look.failure or stopped)
        else:
            size, sole_source = self._held().version.size or 0, self._fetched_by().sole_source()
            self._follow(self._checks.decide(expected, look.findings, size, sole_source))

    def _follow(self, outcome: Outcome) -> None:
        """Do what the checks have decided."""
        if not isinstance(outcome, Reject) and outcome.note is not None:
            self.note(outcome.note)
        match outcome:
            case LetPass():
                self._sync()
            case FetchAgain():
                self.phase = Phase.TRANSFERRING
                self._fetched_by().begin_again(outcome)
            case Reject():
                self._reject(outcome.verdict)
            case _:
                assert_never(outcome)

    def _reject(self, verdict: Verdict) -> None:
        self._is_spoilt = True
        self._fail(with_status(verdict, self._tally().http_status))

    def _sync(self) -> None:
        holding = self._held()
        part, durable = holding.opened(), self._settings.durable
        if self.assign.options.remote_time:
            head = self._fetched_by().head
            part.set_time(holding.version.last_modified or (head.fields.get("last-modified") if head else None))
        self.phase = Phase.SYNCING
        if durable and not self.is_visible:
            self._jobs.hold(part.sync, self._synced, part.fd)
        else:
            self._jobs.submit(part.sync if durable else part.flush, self._synced)

    def _synced(self, error: OSError | None) -> None:
        self._guarded(lambda: self._after_sync(error))

    def _after_sync(self, error: OSError | None) -> None:
        if error is not None:
            raise error
        if self._halt is not None:
            self._let_go(discard=self._halt, report=self._halted)
            return
        holding = self._held()
        delivery = self._delivery = Delivery(self.assign.lease, holding, self._tally(), self._checks.sha256)
        if holding.version.size not in (None, delivery.size_bytes()):
            self._delivery = None
            self._refuse_changed()
        self.phase = Phase.READY
        self._facilities.reports.add(delivery.ready())

    # --- publishing ---

    def _publish(self) -> None:
        delivery = self._delivered()
        if not delivery.is_unchanged():
            self._refuse_changed()
        if delivery.publish():
            self.phase = Phase.PUBLISHING
        else:
            self._facilities.reports.add(delivery.ready())

    def _refuse_changed(self) -> None:
        """Give up a part file that another program has written to.

        Raises: TaskFailed.
        """
        self._is_spoilt = True
        raise TaskFailed(FailureCode.FILE_BUSY, f"another program writes to {self._held().opened().name}")

    def published_in(self) -> tuple[Folder, int]:
        """Return the folder that must be synced before `published`, and the file's descriptor."""
        return self._delivered().published_in()

    def published(self, folder_path: str, error: OSError | None) -> None:
        """Report the end: the folder is synced, and has this path now."""
        self._guarded(lambda: self._after_publish(folder_path, error))

    def _after_publish(self, folder_path: str, error: OSError | None) -> None:
        finished = self._delivered().finish(folder_path)
        if error is not None:
            folder = self._held().folder
            verdict = folder.explain(os_verdict(error, f"sync the folder {folder.path}"))
            self._end(letting_go.failed_report(self.assign, verdict, self._tally(), Kept()))
        else:
            self._end(finished)

    # --- the end ---

    def _fail(self, verdict: Verdict) -> None:
        if self._holding is not None:
            verdict = self._holding.folder.explain(verdict)
        self._let_go(
            discard=False, report=lambda kept: letting_go.failed_report(self.assign, verdict, self._tally(), kept)
        )

    def _halted(self, kept: Kept) -> Report:
        return letting_go.halted_report(self.assign, self._tally(), kept)

    def _current(self, _: Kept) -> Report:
        folder, name = self._held().folder, check_output(self.assign.output or "")
        size, status = folder.size_of(name), self._tally().http_status
        return Current(lease=self.assign.lease, dest=folder.join(name), size_bytes=size, http_status=status)

    def _let_go(self, *, discard: bool, report: Callable[[Kept], Report]) -> None:
        """Stop, keep or remove the part file, and report."""
        self._stop()
        holding = self._holding
        if holding is None or holding.part is None:
            self._end(report(letting_go.release_unopened(self._facilities.folders, self.assign, discard=discard)))
            return
        is_wanted = not discard and not self._is_spoilt
        record = letting_go.worth_keeping(holding, self._ranges(holding)) if is_wanted else None
        if record is not None and self._fetching is not None and self._delivery is None:  # else `ready` told it
            self._fetching.tell_part()
        self.phase = Phase.SAVING
        part, holding.part = holding.part, None
        durable = self._settings.durable
        letting_go.release(
            part, record, self._jobs, durable, lambda kept: self._guarded(lambda: self._end(report(kept)))
        )

    def _end(self, report: Report) -> None:
        self.phase = Phase.ENDED
        self._was_visible = self.is_visible
        if self._fetching is not None:
            self._fetching.close()
        self._fetching = self._holding = self._delivery = None  # the folder is let go of now
        self._facilities.reports.add(report)

    # --- small questions ---

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do something that may fail this assignment, and only this one."""
        try:
            action()
        except Exception as error:  # noqa: BLE001  reported
            self._fail_somehow(verdict_of(error, f"save to {self.assign.dir}", self.assign.task_id))

    def _fail_somehow(self, verdict: Verdict) -> None:
        if self.phase is Phase.ENDED:
            return
        try:
            self._fail(verdict)
        except Exception:
            logger.exception("a failure could not be handled", extra={"event": "defect"})
            self._end(letting_go.failed_report(self.assign, verdict, self._tally(), Kept()))

    def _stop(self) -> None:
        if self._preparation is not None:
            self._preparation.stop()
            self._preparation = None
        if self._fetching is not None:
            self._fetching.stop()

    def _ranges(self, holding: Holding) -> Ranges | None:
        """Return what of the part file is good, None when nothing is known to be."""
        if self.phase in IS_COMPLETE:
            return ((0, holding.version.size),) if holding.version.size else ()
        return self._fetched_by().ranges()

    def _held(self) -> Holding:
        if self._holding is None:
            raise RuntimeError("no folder is open")
        return self._holding

    def _delivered(self) -> Delivery:
        if self._delivery is None:
            raise RuntimeError("no part file is ready")
        return self._delivery

    def _fetched_by(self) -> Fetching:
        if self._fetching is None:
            raise RuntimeError("no folder is open")
        return self._fetching

    def _tally(self) -> Tally:
        return self._fetching.tally() if self._fetching is not None else Tally()
