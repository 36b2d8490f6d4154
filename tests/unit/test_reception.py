"""What workers report comes in by pieces, in order, and is recorded together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from multiprocessing import Pipe
from types import SimpleNamespace
from typing import Any

import pytest
from support.leases import failed, lease

from autodl_lib.contract.codec import dumps, message_to_json
from autodl_lib.contract.task import TaskId
from autodl_lib.contract.worker_messages import Bound, Report
from autodl_lib.contract.worker_states import WorkerState
from autodl_lib.supervisor.workers.admission import Admitted
from autodl_lib.supervisor.workers.reception import PIECE, Reception
from autodl_lib.supervisor.workers.worker_handle import Worker

KEY = "0" * 16


class Pool:
    """What a reception needs of one, with one worker."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.distrusted: list[str] = []
        self.roster = SimpleNamespace(live={}, starting={KEY: None}, learn_pace=lambda _: None)
        self.leases = SimpleNamespace(live={})
        self.allotments = SimpleNamespace(take=lambda _: [])

    def start(self) -> None:
        del self.roster.starting[KEY]
        self.roster.live[KEY] = self.worker

    def send(self, orders: Any) -> None: ...

    def retire(self, worker_key: str) -> None: ...

    def distrust(self, worker: Worker, why: str) -> None:
        self.distrusted.append(why)


class Recorder:
    """Notes what it is given, and how often the loop had turned by then."""

    def __init__(self) -> None:
        self.batches: list[list[TaskId]] = []

    async def reported(self, batch: list[Admitted]) -> None:
        self.batches.append([item.lease.task_id for item in batch])

    async def lost(self, losses: Any) -> None: ...

    def changed(self) -> None: ...


class Place:
    """A reception with a worker of many assignments."""

    def __init__(self, worker: Worker) -> None:
        self.pool, self.recorder = Pool(worker), Recorder()
        self.reception = Reception(self.pool, self.recorder)  # type: ignore[arg-type]


@pytest.fixture
def place() -> Iterator[Place]:
    async def make() -> Worker:
        reader, writer = Pipe(duplex=False)
        reader.close()
        worker = Worker(KEY, lease(0), SimpleNamespace(pid=1), writer, -1)  # type: ignore[arg-type]
        worker.leases.update({str(number): lease(number) for number in range(1000)})
        return worker

    worker = asyncio.run(make())
    yield Place(worker)
    worker._orders.close()


def text(*reports: Report) -> str:
    return dumps({"worker": KEY, "reports": [message_to_json(report) for report in reports]}).decode().strip()


def test_others_have_their_turns_while_a_flood_is_checked_and_it_is_recorded_as_one(place: Place) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def run() -> None:
        place.pool.start()
        place.pool.worker.move(WorkerState.BOUND)
        place.pool.worker.move(WorkerState.BUSY)
        turning = asyncio.create_task(turn())
        await place.reception.take([text(failed(str(number))) for number in range(10 * PIECE)])
        turning.cancel()

    asyncio.run(run())
    assert place.recorder.batches == [list(range(10 * PIECE))]
    assert turns >= 9


def test_what_a_worker_said_before_the_news_of_its_start_comes_before_what_it_has_said_since(place: Place) -> None:
    early = [text(Bound(lease=KEY), failed(str(0))), *[text(failed(str(number))) for number in range(1, 3 * PIECE)]]
    late = [text(failed(str(number))) for number in range(3 * PIECE, 5 * PIECE)]

    async def run() -> None:
        await place.reception.take(early)
        assert place.recorder.batches == []
        place.pool.start()
        await asyncio.gather(place.reception.take_early(KEY), place.reception.take(late))

    asyncio.run(run())
    assert [task for batch in place.recorder.batches for task in batch] == list(range(5 * PIECE))
    assert not place.pool.distrusted


def test_nothing_is_kept_of_a_worker_that_did_not_start(place: Place) -> None:
    async def run() -> None:
        await place.reception.take([text(Bound(lease=KEY))])
        place.reception.forget(KEY)
        place.pool.start()
        await place.reception.take_early(KEY)

    asyncio.run(run())
    assert place.recorder.batches == []
    assert place.pool.worker.state is WorkerState.SPAWNED


@pytest.mark.parametrize("others", [0, 2 * PIECE], ids=["in the same piece", "in a later one"])
def test_a_worker_is_not_believed_after_a_lie(others: int, place: Place) -> None:
    lie = text(failed(str(0)))
    nonsense = ['{"worker":"1111111111111111","reports":[{"type":"x"}]}'] * others

    async def run() -> None:
        place.pool.start()
        place.pool.worker.move(WorkerState.BOUND)
        place.pool.worker.move(WorkerState.BUSY)
        await place.reception.take([text(failed(str(0))), lie, *nonsense, text(failed(str(1)))])
        await place.reception.take([text(failed(str(2)))])

    asyncio.run(run())
    assert place.recorder.batches == [[0]]
    assert len(place.pool.distrusted) == 1
