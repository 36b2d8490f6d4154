"""How much work a worker is handed ahead: by its pace, and nothing once it has given some back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import Pipe

import pytest
from support.leases import failed, lease

from autodl_lib.contract.worker_messages import Retained, Returned, Started
from autodl_lib.contract.worker_states import WorkerState
from autodl_lib.supervisor.workers.worker_handle import MAX_ROOM, ReportRefused, Worker

STARTED = {"name": "f", "part": ".f.autodl-part", "bytes_done": 0, "bytes_total": None}


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
        with pytest.MonkeyPatch.context() as patch:
            now = time.monotonic()
            patch.setattr(time, "monotonic", lambda: now)
            for number in range(40):
                made.set_pace([lease(number)])
        for number in (1, 2, 3):
            made.leases[str(number)] = lease(number)
        return made

    made = asyncio.run(make())
    yield made
    made._orders.close()


def test_a_quick_worker_is_handed_much_ahead_until_it_gives_something_back(worker: Worker) -> None:
    assert worker.room == MAX_ROOM
    worker.admit(Started(lease="1", http_status=200, **STARTED))  # type: ignore[arg-type]
    for number in ("3", "2"):
        worker.admit(Returned(lease=number))
    assert worker.room == 1


def test_the_pace_of_a_worker_is_that_of_its_work_though_the_news_come_in_lots(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    for _ in range(20):
        clock += 20 * 0.006
        for number in range(20):
            worker.set_pace([replace(lease(number), begun_mono=0.0)])
    assert 0.004 < worker.pace_s < 0.008
    assert worker.room in range(35, 80)


def test_the_first_news_of_many_files_count_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come late and together: one of them alone would make the worker a slow one, and others would be started."""
    clock = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: clock)

    async def make() -> Worker:
        reader, writer = Pipe(duplex=False)
        reader.close()
        return Worker("0" * 16, lease(0), NoProcess(), writer, -1)  # type: ignore[arg-type]

    worker = asyncio.run(make())
    worker.move(WorkerState.BOUND)
    worker._last_end_mono = worker._ends_since_mono = clock
    begun_mono, clock = clock, clock + 0.08
    worker.set_pace([replace(lease(number), begun_mono=begun_mono) for number in range(40)])
    assert worker.is_quick
    worker._orders.close()


def test_what_a_worker_waited_for_work_is_no_part_of_its_pace(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    for _ in range(40):
        clock += 5.0
        begun_mono, clock = clock, clock + 0.006
        worker.set_pace([replace(lease(0), begun_mono=begun_mono)])
    assert 0.004 < worker.pace_s < 0.008


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


def test_what_was_recalled_is_given_back_whatever_is_before_it_and_says_nothing_of_the_pace(worker: Worker) -> None:
    recall(worker, "1", "2")
    for number in ("1", "2"):
        worker.admit(Returned(lease=number))
    assert worker.room == MAX_ROOM
    assert not worker.is_useless


def test_what_has_begun_when_it_is_recalled_is_retained_once_and_goes_on(worker: Worker) -> None:
    recall(worker, "1")
    worker.admit(Retained(lease="1"))
    recalled = worker.leases["1"].recalled
    assert recalled is not None
    assert recalled.is_set()
    worker.admit(Started(lease="1", http_status=200, **STARTED))  # type: ignore[arg-type]
    with pytest.raises(ReportRefused):
        worker.admit(Retained(lease="1"))


def test_nothing_is_retained_that_was_not_recalled(worker: Worker) -> None:
    with pytest.raises(ReportRefused):
        worker.admit(Retained(lease="1"))


def recall(worker: Worker, *ids: str) -> None:
    for number in ids:
        worker.leases[number].recalled = asyncio.Event()
