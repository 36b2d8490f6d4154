"""The one helper thread: everything that waits for the disk, so that the network never has to.

Runs as: the task's owner.  Talks to: the disk, the worker's loop (a queue there, an eventfd back).
Jobs are done in order; files that wait side by side are synced together, so that many small ones share the disk's
work and the journal's commit. That makes it worth to hold a small file's job back for a moment, until others have
joined it.
Invariants: the loop leaves a job's files alone until the job came back.
How it fails: a job's OSError comes back with the job; the thread itself never ends but by `stop`. Where it can't be
started, its jobs are done on the loop's.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

from autodl_lib.worker.group_sync import GroupSync

Fsync = Callable[[int], None]
"""os.fsync, or what does the same for a descriptor that was synced together with others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncJob:
    """What the thread does (`run`), and whom the loop tells how it went (`done`); `fd`: it may be synced before."""

    run: Callable[[Fsync], None]
    done: Callable[[OSError | None], None]
    fd: int | None = None


HOLD_S = 0.03
_HOLD_JOBS = 64


class SyncThread:
    """Does jobs in the background; `collect` brings their results into the loop."""

    def __init__(self) -> None:
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wake = threading.Condition(threading.Lock())
        self._jobs: deque[SyncJob] = deque()
        self._results: deque[tuple[SyncJob, OSError | None]] = deque()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._outstanding = 0
        self._held: list[SyncJob] = []
        self._held_mono = 0.0
        self._group = GroupSync()

    def hold(self, job: SyncJob) -> None:
        """Take a job that may wait for company; `release` or the next `submit` hands it over."""
        self._outstanding += 1
        if not self._held:
            self._held_mono = time.monotonic()
        self._held.append(job)

    def deadline_mono(self) -> float | None:
        """Return when `release` is due, None when no job is held back."""
        return self._held_mono + HOLD_S if self._held else None

    def release(self, now: float, *, at_once: bool) -> None:
        """Hand over what is held back, if it has waited long enough or is enough."""
        if self._held and (at_once or len(self._held) >= _HOLD_JOBS or now >= self._held_mono + HOLD_S):
            self._hand_over([])

    def submit(self, job: SyncJob) -> None:
        """Hand a job over; its `done` is called by a later `collect`."""
        self._outstanding += 1
        self._hand_over([job])

    def is_busy(self) -> bool:
        """Tell whether any job's result is still to come."""
        return self._outstanding > 0

    def collect(self) -> None:
        """Call `done` of every job that has been done."""
        try:
            os.eventfd_read(self.event_fd)
        except BlockingIOError:
            return
        while self._results:
            job, error = self._results.popleft()
            self._outstanding -= 1
            job.done(error)

    def stop(self) -> None:
        """Let the thread do what it has and end; nobody is told the results any more."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    def _hand_over(self, jobs: list[SyncJob]) -> None:
        held, self._held = self._held, []
        with self._wake:
            self._jobs.extend(held)
            self._jobs.extend(jobs)
            self._wake.notify()
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._work, name="sync", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the user may have no more processes and threads: then the network waits for the disk
            self._do(self._take())
        else:
            self._thread = thread

    def _take(self) -> list[SyncJob]:
        batch = list(self._jobs)
        self._jobs.clear()
        return batch

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._jobs and not self._stopping:
                    self._wake.wait()
                batch = self._take()
            if not batch:
                return
            self._do(batch)

    def _do(self, batch: list[SyncJob]) -> None:
        for may_share, jobs in groupby(batch, key=_may_share):
            self._do_alike(list(jobs), may_share=may_share)
        os.eventfd_write(self.event_fd, 1)

    def _do_alike(self, jobs: list[SyncJob], *, may_share: bool) -> None:
        fsync = self._synced_together(jobs) if may_share else os.fsync
        for job in jobs:
            self._results.append((job, _outcome(job, fsync)))

    def _synced_together(self, jobs: list[SyncJob]) -> Fsync:
        try:
            return self._group.synced([job.fd for job in jobs if job.fd is not None])
        except Exception:  # noqa: BLE001  no memory, say: it is only for speed
            return os.fsync


def _may_share(job: SyncJob) -> bool:
    return job.fd is not None


def _outcome(job: SyncJob, fsync: Fsync) -> OSError | None:
    try:
        job.run(fsync)
    except OSError as error:
        return error
    except Exception as error:  # noqa: BLE001  the loop must hear of it, whatever it is
        return OSError(0, f"{type(error).__name__}: {error}")
    return None


def write_range_back(fd: int, offset: int, length: int) -> None:
    """Begin to write a range's dirty pages without waiting for them. Source: sync_file_range(2).

    What it can't do (another kernel, a file system without it) is left to the sync at the end.
    """
    if _sync_file_range is not None:
        _sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


def _find_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    call: Callable[[int, int, int, int], int] = function
    return call


_SYNC_FILE_RANGE_WRITE = 2
_sync_file_range = _find_sync_file_range()
