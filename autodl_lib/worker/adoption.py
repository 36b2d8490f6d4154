"""Taking over a part of the file that another program left: a copy of it becomes the part file.

Runs as: the task's owner; the copy in the sync thread.  Talks to: the part file, the other program's file.
Invariants: the other program's file is let go of, whatever happens.
How it fails: OSError or TaskFailed from `adopt`; a Verdict afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

from autodl_lib.worker.disk_jobs import DiskJobs
from autodl_lib.worker.files.control_file import ControlRecord
from autodl_lib.worker.files.foreign_part import CopyJob
from autodl_lib.worker.holding import Holding
from autodl_lib.worker.network.verdicts import Verdict, os_verdict
from autodl_lib.worker.preparation import Adopted


def adopt(
    adopted: Adopted, holding: Holding, jobs: DiskJobs, done: Callable[[ControlRecord | Verdict | None], None]
) -> None:
    """Copy; `done` gets what the part file then holds (None for nothing), or why that failed.

    Raises: TaskFailed, OSError, when there is no part file to be had.
    """
    foreign, copy = adopted.foreign, CopyJob()

    def copied(error: OSError | None) -> None:
        foreign.close()
        if error is not None:
            done(os_verdict(error, f"copy {foreign.path}"))
        else:
            done(holding.adopted(adopted, copy.copied_bytes))

    try:
        part = holding.adopt(adopted)
    except BaseException:
        foreign.close()
        raise
    jobs.submit(copy.of(part.fd, foreign), copied)
