"""How much work a worker is handed ahead: by its pace, and nothing once it has given some back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from multiprocessing import Pipe

import pytest

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.contract.worker_messages import Failed, Returned, Started
from autodl_lib.contract.worker_states import WorkerState
from autodl_lib.supervisor.workers.worker_handle import MAX_ROOM, Lease, ReportRefused, Worker

STARTED = {"dir": "/d", "name": "f", "part": ".f.autodl-part", "bytes_done": 0, "bytes_total": None}


class NoProcess:
    pid = 1


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker whose recent assignments were over in no time, with three more."""

    async def make() -> Worker:
        reader, writer = Pipe(duplex=False)
        reader.close()
        made = Worker("0" * 16, lease(0), NoProcess(), writer, -1)  # type: ignore[arg-type]
        for state in (WorkerState.BOUND, WorkerState.BUSY):
            made.move(state)
        for number in range(40):
            made.set_pace(lease(number))
        for number in (1, 2, 3):
            made.leases[str(number)] = lease(number)
        return made

    made = asyncio.run(make())
    yield made
    made._orders.close()


def lease(number: int) -> Lease:
    return Lease(
        id=str(number), task_id=TaskId(number), uid=Uid(1000), folder="/d", streak=0, bytes_before=0, identity=None
    )


def failed(lease_id: str) -> Failed:
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


def test_a_quick_worker_is_handed_much_ahead_until_it_gives_something_back(worker: Worker) -> None:
    assert worker.room == MAX_ROOM
    worker.admit(Started(lease="1", http_status=200, **STARTED))  # type: ignore[arg-type]
    for number in ("3", "2"):
        worker.admit(Returned(lease=number))
    assert worker.room == 1


def test_a_worker_that_has_served_nothing_yet_gives_nothing_back_with_nothing_before_it(worker: Worker) -> None:
    with pytest.raises(ReportRefused):
        worker.admit(Returned(lease="1"))
    assert not worker.is_useless


def test_one_that_gives_back_what_is_next_can_no_longer_serve_its_folder(worker: Worker) -> None:
    worker.admit(failed("1"))
    worker.admit(Returned(lease="2"))
    assert worker.is_useless


def test_what_is_under_way_is_not_given_back(worker: Worker) -> None:
    worker.admit(failed("1"))
    worker.admit(Started(lease="2", http_status=200, **STARTED))  # type: ignore[arg-type]
    with pytest.raises(ReportRefused):
        worker.admit(Returned(lease="2"))
