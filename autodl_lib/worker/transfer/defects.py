"""What an exception means for a task: its own failure, the disk's, or a defect of ours.

Runs as: the task's owner.  Talks to: the log.
"""

from __future__ import annotations

import logging

from autodl_lib.contract.failures import FailureCode
from autodl_lib.worker.network.verdicts import TaskFailed, Verdict, os_verdict

logger = logging.getLogger(__name__)


def verdict_of(error: Exception, what: str, task_id: int | None = None) -> Verdict:
    """Return the verdict; a defect is logged. `what` completes "could not ...", where it is the disk's failure."""
    match error:
        case TaskFailed():
            return error.verdict
        case OSError():
            return os_verdict(error, what)
        case _:
            logger.error("a task met a defect", exc_info=error, extra={"event": "defect", "task_id": task_id})
            return Verdict(code=FailureCode.INTERNAL, message=f"a defect of autodl: {type(error).__name__}")
