"""Letting go of a part file before it is complete, or wanted: its last checkpoint, or its removal.

Runs as: the task's owner.  Talks to: the destination folder; the sync thread, for what waits for the disk.
Invariants: what is reported as kept is what the control file says, and nothing else is kept.
How it fails: it doesn't; what can't be saved is not kept, what can't be removed stays, and the log says so.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from autodl_lib.contract.worker_messages import Assign, Failed, Halted
from autodl_lib.worker.disk_jobs import DiskJobs, nothing
from autodl_lib.worker.fetching import Tally
from autodl_lib.worker.files.control_file import ControlRecord, Ranges
from autodl_lib.worker.files.folder import Folders, OtherFolder
from autodl_lib.worker.files.part_file import PartFile, discard_part
from autodl_lib.worker.holding import Holding
from autodl_lib.worker.network.verdicts import TaskFailed, Verdict

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What stays on disk for a later attempt: the part file's name, None for nothing, and how much is in it."""

    part: str | None = None
    bytes_done: int = 0


def worth_keeping(holding: Holding, ranges: Ranges | None) -> ControlRecord | None:
    """Return what the last checkpoint is to say, None when nothing is worth it."""
    if ranges is None or not holding.is_worth_keeping(ranges):
        return None
    with contextlib.suppress(OSError):  # what can't be looked at can't be kept
        return holding.record_of(ranges) if holding.opened().is_in_place() else None
    return None


def release(
    part: PartFile, record: ControlRecord | None, jobs: DiskJobs, durable: bool, done: Callable[[Kept], None]
) -> None:
    """Let go of a part file; with a record it is kept, once that is saved, else it is removed."""

    def over(error: OSError | None) -> None:
        if error is not None:
            logger.warning("a checkpoint failed", extra={"event": "checkpoint_failed", "reason": str(error)})
        done(_close(part, part.saved if record is not None else None))

    if record is not None:
        jobs.submit(lambda: part.checkpoint(record, durable=durable), over)
    elif jobs.is_busy():
        jobs.submit(nothing, over)
    else:
        over(None)


def leave(holding: Holding, ranges: Ranges | None, *, durable: bool) -> None:
    """Save a part file, or remove it, here and now; for a worker whose sync thread rests.

    Raises: OSError, ValueError.
    """
    record = worth_keeping(holding, ranges)
    if record is not None:
        holding.opened().checkpoint(record, durable=durable)
    else:
        holding.opened().remove()


def release_unopened(folders: Folders, assign: Assign, *, discard: bool) -> Kept:
    """Let go of the part file that an earlier attempt left, which this one has not opened."""
    part = assign.part
    if not discard or part is None:
        return Kept(part=part)
    try:
        discard_part(folders.open(assign.dir, create=False), part, assign.tag)
    except (TaskFailed, OtherFolder, OSError) as error:
        logger.info("a part file could not be removed", extra={"event": "part_left", "reason": str(error)})
    return Kept()


def failed_report(assign: Assign, verdict: Verdict, tally: Tally, kept: Kept) -> Failed:
    """Return the report that an assignment failed."""
    return Failed(
        lease=assign.lease,
        code=verdict.code,
        message=verdict.message,
        http_status=verdict.http_status,
        retry_after_s=verdict.retry_after_s,
        elsewhere=verdict.is_of_another,
        source=tally.failed_source,
        bytes_done=kept.bytes_done,
        bytes_received=tally.bytes_received,
        part=kept.part,
    )


def halted_report(assign: Assign, tally: Tally, kept: Kept) -> Halted:
    """Return the report that an assignment was let go of as ordered."""
    received = tally.bytes_received
    return Halted(lease=assign.lease, bytes_done=kept.bytes_done, bytes_received=received, part=kept.part)


def _close(part: PartFile, saved: ControlRecord | None) -> Kept:
    try:
        if saved is not None and saved.ranges:
            part.close()
            return Kept(part=part.name, bytes_done=saved.bytes_done())
        part.remove()
    except OSError as error:
        logger.info("a part file could not be removed", extra={"event": "part_left", "reason": str(error)})
        part.close()
    return Kept()
