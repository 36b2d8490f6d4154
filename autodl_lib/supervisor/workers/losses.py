"""What a worker's end means for the assignments that it had.

Runs as: the supervisor.  Talks to: the log.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from autodl_lib.contract.task import Uid
from autodl_lib.contract.worker_states import LeasePhase
from autodl_lib.privilege.first_code import EXIT_DROP, EXIT_NO_ACCOUNT, EXIT_NO_QUEUE
from autodl_lib.supervisor.workers.worker_handle import Lease

STATUS_UNKNOWN = 255

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A lease whose worker has ended; `blamed` where this task may be the reason."""

    lease: Lease
    blamed: bool
    no_account: bool
    reason: str


def losses_of(leases: list[Lease], status: int, *, was_retiring: bool, was_bound: bool) -> list[Loss]:
    """Return the losses of one worker's end, by its exit status (below 0: a signal).

    One that was told to go is nobody's fault, and neither is one that found no report queue, or that ended at its start
    together with the forkserver, which alone knew how. Otherwise the task that was under way, else the oldest one, may
    be what killed it. `was_bound`: it had reported for duty, so that its exit status is the word of code that the
    network may have touched, and says nothing.
    """
    forgiven = was_retiring or (status in (EXIT_NO_QUEUE, STATUS_UNKNOWN) and not was_bound)
    blamed = min(leases, key=lambda lease: (lease.phase is not LeasePhase.STARTED, lease.begun_mono), default=None)
    return [
        Loss(
            lease=lease,
            blamed=not forgiven and lease is blamed,
            no_account=status == EXIT_NO_ACCOUNT and not was_bound,
            reason=f"exited with status {status}" if was_bound and status >= 0 else reason_of(status),
        )
        for lease in leases
    ]


def log_lost(pid: int, uid: Uid, status: int) -> None:
    """Tell the log that a worker was lost."""
    extra = {"event": "worker_lost", "uid": uid}
    logger.warning("worker %d of uid %d was lost: %s", pid, uid, reason_of(status), extra=extra)


def reason_of(status: int) -> str:
    """Say in words how a worker ended."""
    if status == EXIT_NO_ACCOUNT:
        return "the user has no account on this machine any more"
    if status == EXIT_DROP:
        return "the worker could not become the task's user"
    return f"killed by signal {-status}" if status < 0 else f"exited with status {status}"
