"""What a transfer does by time alone: says that it has started and how far it is, and saves what it has.

Runs as: the task's owner.  Talks to: the report buffer, the sync thread.
Invariants: `started` is reported once for each transfer that takes long enough to be seen (and once before, where the
server is slow to answer), progress at most four
times a second; one checkpoint at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autodl_lib.contract.worker_messages import Progress, Started, TransferSettings
from autodl_lib.worker.disk_jobs import DiskJobs
from autodl_lib.worker.files.control_file import Ranges
from autodl_lib.worker.files.folder import Folders
from autodl_lib.worker.holding import Holding
from autodl_lib.worker.network.connection import Connections
from autodl_lib.worker.network.verdicts import Verdict, os_verdict
from autodl_lib.worker.reporting import ReportBuffer
from autodl_lib.worker.sync_thread import SyncThread
from autodl_lib.worker.transfer.transfer import Transfer

STARTED_AFTER_S = 0.05
WAITING_AFTER_S = 0.3
"""Who is that long without an answer is seen to wait; a file that comes at once after it is as quick as any."""
PROGRESS_EVERY_S = 0.25
CHECKPOINT_EVERY_S = 2.0


@dataclass(slots=True, kw_only=True)
class Facilities:
    """What the sessions of a worker share."""

    connections: Connections
    folders: Folders
    sync: SyncThread
    reports: ReportBuffer
    settings: TransferSettings


class Pulse:
    """The beat of one assignment's transfers."""

    def __init__(
        self,
        lease: str,
        holding: Holding,
        facilities: Facilities,
        jobs: DiskJobs,
        failed: Callable[[Verdict], None],
    ) -> None:
        self.is_visible = False
        """Whether `started` was reported."""
        self.is_part_told = False
        """Whether it named the part file."""
        self._checkpoint_runs = False
        self.wake_mono = 0.0
        """When `beat` has something to do."""
        self._lease = lease
        self._holding = holding
        self._facilities = facilities
        self._jobs = jobs
        self._durable = facilities.settings.durable
        self._failed = failed
        self._begun_mono = 0.0
        self._next_progress_mono = 0.0
        self._next_checkpoint_mono = 0.0
        self._last_progress: Progress | None = None

    def begin(self, begun_mono: float) -> None:
        """Count from when the first transfer began."""
        self._begun_mono = begun_mono
        self._next_checkpoint_mono = begun_mono + CHECKPOINT_EVERY_S
        self.look_soon()

    def beat(self, transfer: Transfer, now: float) -> None:
        """Report and save what is due.

        Raises: OSError, TaskFailed.
        """
        self.wake_mono = self._next_checkpoint_mono
        if now < self._begun_mono + STARTED_AFTER_S:
            self.wake_mono = min(self.wake_mono, self._begun_mono + STARTED_AFTER_S)
        elif transfer.ranges() is not None:
            self._show(transfer, now)
        elif not self.is_visible:
            self._show_waiting(now)
        if now >= self._next_checkpoint_mono:
            self._checkpoint(transfer, now)

    def look_soon(self) -> None:
        """Look again when the transfer has lasted long enough to be seen."""
        self.wake_mono = self._begun_mono + STARTED_AFTER_S

    def _show(self, transfer: Transfer, now: float) -> None:
        if self._holding.version.size is None:
            self._holding.check_space(0)  # who does not say how much is to come may fill the disk
        if not self.is_part_told:
            self.tell_started(transfer.bytes_done(), transfer.status)
            self._next_progress_mono = now + PROGRESS_EVERY_S
        elif now >= self._next_progress_mono:
            progress = Progress(
                lease=self._lease,
                bytes_done=transfer.bytes_done(),
                bytes_total=self._holding.version.size,
                speed_bps=transfer.speed_bps(now),
                connections=transfer.connection_count(),
            )
            if progress != self._last_progress:
                self._facilities.reports.add(progress)
            self._last_progress = progress
            self._next_progress_mono = now + PROGRESS_EVERY_S
        self.wake_mono = min(self.wake_mono, self._next_progress_mono)

    def _show_waiting(self, now: float) -> None:
        if now < self._begun_mono + WAITING_AFTER_S:
            self.wake_mono = min(self.wake_mono, self._begun_mono + WAITING_AFTER_S)
            return
        self.is_visible = True
        started = Started(
            lease=self._lease,
            name=None,
            part=None,
            bytes_done=0,
            bytes_total=None,
            http_status=None,
        )
        self._facilities.reports.add(started)

    def tell_started(self, bytes_done: int, http_status: int | None) -> None:
        """Report that the part file is there."""
        holding = self._holding
        self.is_visible = self.is_part_told = True
        self._facilities.reports.add(
            Started(
                lease=self._lease,
                name=holding.name,
                part=holding.opened().name,
                bytes_done=bytes_done,
                bytes_total=holding.version.size,
                http_status=http_status,
            )
        )

    def _checkpoint(self, transfer: Transfer, now: float) -> None:
        self._next_checkpoint_mono = now + CHECKPOINT_EVERY_S
        self.wake_mono = min(self.wake_mono, self._next_checkpoint_mono)
        if transfer.ranges() is None or self._checkpoint_runs:
            return
        transfer.write_held()
        holding = self._holding
        ranges: Ranges = transfer.ranges() or ()
        holding.check_space(0)
        if not holding.is_worth_keeping(ranges):
            return
        part, record, durable = holding.opened(), holding.record_of(ranges), self._durable
        self._checkpoint_runs = True
        self._jobs.submit(lambda: part.checkpoint(record, durable=durable), self._checkpointed)

    def _checkpointed(self, error: OSError | None) -> None:
        self._checkpoint_runs = False
        if error is not None:
            self._failed(os_verdict(error, "save the part file"))
