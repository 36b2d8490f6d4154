"""Leases and reports for tests of what the supervisor makes of them, without any process."""

from __future__ import annotations

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.contract.worker_messages import Failed
from autodl_lib.supervisor.workers.worker_handle import Lease


def lease(number: int) -> Lease:
    """Return a lease of a task of that number, which is its id as well."""
    return Lease(
        id=str(number), task_id=TaskId(number), uid=Uid(1000), folder="/d", streak=0, bytes_before=0, identity=None
    )


def failed(lease_id: str) -> Failed:
    """Return the report that nothing came of an assignment."""
    return Failed(
        lease=lease_id,
        code=FailureCode.NETWORK,
        message="no answer",
        http_status=None,
        retry_after_s=None,
        bytes_done=0,
        bytes_received=0,
        part=None,
    )
