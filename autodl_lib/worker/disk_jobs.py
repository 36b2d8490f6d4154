"""One assignment's jobs for the sync thread, counted: its part file is not let go of while one of them may use it.

Runs as: the task's owner.  Talks to: the sync thread.
Invariants: a descriptor that a job was given stays what it is until the job came back, if `is_busy` is heeded. A
closed one would soon be another task's file.
"""

from __future__ import annotations

from collections.abc import Callable

from autodl_lib.worker.sync_thread import Fsync, SyncJob, SyncThread


class DiskJobs:
    """The jobs of one part file."""

    def __init__(self, sync: SyncThread) -> None:
        self._sync = sync
        self._under_way = 0

    def is_busy(self) -> bool:
        """Tell whether a job has not come back."""
        return self._under_way > 0

    def submit(self, run: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        """Have something done after all that was submitted before; see SyncThread.submit."""
        self._sync.submit(self._counted(lambda _: run(), done, None))

    def hold(self, run: Callable[[Fsync], None], done: Callable[[OSError | None], None], fd: int) -> None:
        """Have a file synced that may wait for company; see SyncThread.hold."""
        self._sync.hold(self._counted(run, done, fd))

    def _counted(self, run: Callable[[Fsync], None], done: Callable[[OSError | None], None], fd: int | None) -> SyncJob:
        self._under_way += 1

        def back(error: OSError | None) -> None:
            self._under_way -= 1
            done(error)

        return SyncJob(run=run, done=back, fd=fd)


def nothing() -> None:
    """Do nothing: a job that only waits for those before it."""


def let_be(_: OSError | None) -> None:
    """Pay no heed to how a job went."""
