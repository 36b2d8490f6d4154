"""The transfers of one assignment, one after the other into one part file: what they need, and what they came to.

Runs as: the task's owner.  Talks to: a transfer, the pulse, the part file that its holding has, the sync thread.
The first may go on with a request that was thought to bring the file at once (small_file). There is one more for each
time that a check finds something wrong.
Invariants: what came is counted over all transfers; nobody is told anything once it was stopped.
How it fails: whoever it works for is told.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import Protocol

from autodl_lib.contract.worker_messages import Assign
from autodl_lib.worker.checks import FetchAgain
from autodl_lib.worker.disk_jobs import DiskJobs, let_be
from autodl_lib.worker.files.control_file import ControlRecord, Ranges
from autodl_lib.worker.files.part_file import PartFile
from autodl_lib.worker.files.preallocation import preallocate
from autodl_lib.worker.holding import Holding
from autodl_lib.worker.network.response import Accept
from autodl_lib.worker.network.response_head import ResponseHead
from autodl_lib.worker.network.verdicts import Verdict, os_verdict
from autodl_lib.worker.pulse import Facilities, Pulse
from autodl_lib.worker.sync_thread import write_range_back
from autodl_lib.worker.transfer.job import Job
from autodl_lib.worker.transfer.sources import Source
from autodl_lib.worker.transfer.transfer import Transfer

_RESERVED_FROM_BYTES = 8 * 1024 * 1024
_NEVER = float("inf")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What all transfers came to: bytes from the network, which source failed last, the last response code."""

    bytes_received: int = 0
    failed_source: int = 0
    http_status: int | None = None


class FetchingOwner(Protocol):
    """Who wants the file. Nothing of this ever raises."""

    def note(self, text: str) -> None:
        """Tell the task's history something."""

    def fetched(self) -> None:
        """Hear that the part file is complete."""

    def fetching_failed(self, verdict: Verdict) -> None:
        """Hear why it won't be."""

    def is_current(self) -> None:
        """Hear that there is nothing newer than the file that is there."""


class Fetching:
    """Fills one part file."""

    def __init__(
        self, assign: Assign, holding: Holding, facilities: Facilities, jobs: DiskJobs, owner: FetchingOwner
    ) -> None:
        self.head: ResponseHead | None = None
        """Of the response that the file began with."""
        self._assign = assign
        self._holding = holding
        self._facilities = facilities
        self._jobs = jobs
        self._owner = owner
        self._settings = facilities.settings
        self._attempt: Transfer | None = None
        self._pulse: Pulse | None = None
        self._is_running = False
        self._begun_mono = 0.0
        self._received_before = 0
        self._failed_source = 0

    # --- what the owner asks for ---

    def begin(self, record: ControlRecord | None, newer_than: str | None) -> None:
        """Fetch what `record` lacks, or everything.

        Raises: TaskFailed.
        """
        self._begun_mono = time.monotonic()
        if newer_than is not None and self._holding.part is None:
            self._start(self._job(newer_than), record)
        else:
            self._start(self._job(), record)

    def go_on_with_request(self, begun_mono: float) -> Transfer:
        """Return the transfer that takes over a request for the whole file, which was sent then."""
        self._begun_mono = begun_mono
        self._is_running = True
        transfer = self._attempt = Transfer(self._job(), self, self._facilities.connections)
        self._pulse = self._new_pulse()
        return transfer

    def begin_again(self, again: FetchAgain) -> None:
        """Fetch again what a check found wrong.

        Raises: TaskFailed.
        """
        holding = self._holding
        holding.record = holding.record_of(again.kept) if again.kept else None
        self._start(replace(self._job(), is_plain=again.is_plain, preferred=again.preferred), holding.record)

    def check(self, now: float) -> None:
        """Do what is due by time.

        Raises: OSError, TaskFailed.
        """
        attempt, pulse = self._attempt, self._pulse
        if attempt is None:
            raise RuntimeError("no transfer is under way")
        attempt.check(now)
        is_same = self._is_running and attempt is self._attempt
        if is_same and pulse is not None and now >= pulse.wake_mono:
            pulse.beat(attempt, now)

    def wake_mono(self) -> float:
        """Return when `check` has something to do."""
        if self._attempt is None or not self._is_running:
            return _NEVER
        wake_mono = self._attempt.wake_mono()
        return wake_mono if self._pulse is None else min(wake_mono, self._pulse.wake_mono)

    def set_rate(self, limit_rate_bps: int) -> None:
        """Take at most so many bytes a second from now on; 0 is no limit."""
        transfer = self._running_transfer()
        self._assign = replace(self._assign, limit_rate_bps=limit_rate_bps)
        if transfer is not None:
            transfer.set_rate(limit_rate_bps)

    def grant(self, connections: tuple[int, ...]) -> None:
        """Use at most so many connections to each source from now on."""
        transfer = self._running_transfer()
        self._assign = replace(self._assign, connections=connections)
        if transfer is not None:
            transfer.grant(connections)

    def stop(self) -> None:
        """Stop the transfer, if one is under way; what came is in the part file, as far as that was possible."""
        if self._attempt is None or not self._is_running:
            return
        self._is_running = False
        try:
            self._attempt.stop()
        except OSError:
            logger.info("the last bytes could not be written", extra={"event": "tail_lost"})

    def close(self) -> None:
        """Let go of everything: parts that know each other are not freed as long as they do."""
        self._attempt = self._pulse = None

    # --- what it came to ---

    def is_visible(self) -> bool:
        """Tell whether `started` was reported."""
        return self._pulse is not None and self._pulse.is_visible

    def is_part_told(self) -> bool:
        """Tell whether the supervisor knows the part file."""
        return self._pulse is not None and self._pulse.is_part_told

    def tell_part(self) -> None:
        """Report the part file, unless that was done: it stays, though all was over before it could be seen."""
        if self._attempt is None:
            return
        pulse = self._pulse = self._pulse or self._new_pulse()
        if not pulse.is_part_told:
            pulse.tell_started(self._attempt.bytes_done(), self._attempt.status)

    def ranges(self) -> Ranges | None:
        """Return what the part file holds, None when nothing is known of it."""
        ranges = self._attempt.ranges() if self._attempt is not None else None
        record = self._holding.record
        return ranges if ranges is not None or record is None else record.ranges

    def bytes_done(self) -> int:
        """Return how many bytes of the file are here."""
        return self._attempt.bytes_done() if self._attempt is not None else 0

    def tally(self) -> Tally:
        """Return what all transfers came to so far."""
        attempt = self._attempt
        if attempt is None:
            return Tally()
        received = self._received_before + attempt.received_bytes
        return Tally(bytes_received=received, failed_source=self._failed_source, http_status=attempt.status)

    def sole_source(self) -> int | None:
        """Return the source that brought all bytes, in one response; None where there is no such."""
        return self._attempt.sole_source() if self._attempt is not None else None

    # --- what the transfer asks and tells (job.TransferOwner) ---

    def open_part(self, accepted: Accept, head: ResponseHead | None, source: Source) -> PartFile:
        """Choose the name, claim the part file, or empty the one that can't be continued."""
        is_new = self._holding.part is None
        part = self._holding.open_for(accepted, head)
        if not accepted.is_part or is_new:
            self.head = head
        self._reserve(part, accepted)
        if self._pulse is not None:
            self._pulse.look_soon()
        return part

    def note(self, text: str) -> None:
        """See job.TransferOwner."""
        self._owner.note(text)

    def write_back(self, offset: int, length: int) -> None:
        """See job.TransferOwner."""
        if self._settings.durable:
            fd = self._holding.opened().fd
            self._jobs.submit(lambda: write_range_back(fd, offset, length), let_be)

    def unchanged(self, source: Source) -> None:
        """See job.TransferOwner."""
        self._is_running = False
        self._owner.is_current()

    def transfer_ended(self, failure: Verdict | None, source: int) -> None:
        """See job.TransferOwner."""
        self._is_running = False
        self._failed_source = source
        if failure is None:
            self._owner.fetched()
        else:
            self._owner.fetching_failed(failure)

    # --- on the way ---

    def _running_transfer(self) -> Transfer | None:
        """Return the transfer that an order is for."""
        return self._attempt if self._is_running else None

    def _new_pulse(self) -> Pulse:
        pulse = Pulse(self._assign.lease, self._holding, self._facilities, self._jobs, self._fail)
        pulse.begin(self._begun_mono)
        return pulse

    def _start(self, job: Job, record: ControlRecord | None) -> None:
        self._received_before = self.tally().bytes_received
        transfer = self._attempt = Transfer(job, self, self._facilities.connections)
        self._is_running = True
        if self._pulse is None:
            self._pulse = self._new_pulse()
        self._pulse.look_soon()
        if record is not None:
            transfer.start(record.ranges, record.version)
        else:
            transfer.start()

    def _job(self, newer_than: str | None = None) -> Job:
        assign = self._assign
        return Job(
            urls=(assign.url, *assign.options.mirrors),
            granted=assign.connections,
            headers=assign.headers,
            limit_rate_bps=assign.limit_rate_bps,
            settings=self._settings,
            options=assign.options,
            newer_than=newer_than,
        )

    def _reserve(self, part: PartFile, accepted: Accept) -> None:
        """Reserve the disk space of a large file; the transfer does not wait for it."""
        size = accepted.version.size or 0
        if size >= _RESERVED_FROM_BYTES and not accepted.is_part:
            fd = part.fd
            self._jobs.submit(lambda: preallocate(fd, 0, size), self._reserved)

    def _reserved(self, error: OSError | None) -> None:
        if error is not None:
            self._fail(os_verdict(error, f"reserve space in {self._holding.folder.path}"))

    def _fail(self, verdict: Verdict) -> None:
        """Give up for a reason that the transfer does not know."""
        if self._is_running:
            self._owner.fetching_failed(verdict)
