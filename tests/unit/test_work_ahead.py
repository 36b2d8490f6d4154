"""How much work a worker is handed ahead: by its pace, and nothing once it has given some back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from multiprocessing import Pipe

import pytest

from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.contract.worker_messages import Returned, Started, WorkerState
from autodl_lib.supervisor.workers.worker_handle import MAX_ROOM, Lease, ReportRefused, Worker


class NoProcess:
    pid = 1


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker whose recent assignments were over in no time, with three more."""

    async def make() -> Worker:
        reader, writer = Pipe(duplex=False)
        reader.close()
        made = Worker("0" * 16, Uid(1000), NoProcess(), writer, -1)  # type: ignore[arg-type]
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
    return Lease(id=str(number), task_id=TaskId(number), uid=Uid(1000), streak=0, bytes_before=0, identity=None)


def test_a_quick_worker_is_handed_much_ahead_until_it_gives_something_back(worker: Worker) -> None:
    assert worker.room == MAX_ROOM
    started = {"dir": "/d", "name": "f", "part": ".f.autodl-part", "bytes_done": 0, "bytes_total": None}
    worker.admit(Started(lease="1", http_status=200, **started))  # type: ignore[arg-type]
    for number in ("3", "2"):
        worker.admit(Returned(lease=number))
    assert worker.room == 1


def test_what_is_under_way_alone_is_not_given_back(worker: Worker) -> None:
    with pytest.raises(ReportRefused):
        worker.admit(Returned(lease="1"))
