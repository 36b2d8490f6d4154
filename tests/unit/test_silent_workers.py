"""Who does not answer is killed; who was not listened to meanwhile is not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from multiprocessing import Pipe
from types import SimpleNamespace

import pytest
from support.leases import lease

from autodl_lib.contract.worker_messages import Pong
from autodl_lib.contract.worker_states import WorkerState
from autodl_lib.supervisor.workers.deadlines import ASKED_IN_VAIN, kill_silent
from autodl_lib.supervisor.workers.worker_handle import Worker


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Worker]:
    found: list[Worker] = []
    monkeypatch.setattr(Worker, "kill", lambda worker: found.append(worker))
    return found


def with_busy_worker(work: Callable[[Worker], None]) -> None:
    async def run() -> None:
        kept, orders = Pipe(duplex=False)
        busy = Worker("w", lease(0), SimpleNamespace(pid=1), orders, os.pidfd_open(os.getpid()))  # type: ignore[arg-type]
        busy.move(WorkerState.BOUND)
        busy.move(WorkerState.BUSY)
        work(busy)
        busy.release()
        kept.close()

    asyncio.run(run())


def look(worker: Worker, times: int) -> None:
    for _ in range(times):
        kill_silent([worker])


def test_who_was_asked_so_often_in_vain_is_killed(killed: list[Worker]) -> None:
    def work(worker: Worker) -> None:
        look(worker, ASKED_IN_VAIN)
        assert killed == []
        look(worker, 1)
        assert killed == [worker]

    with_busy_worker(work)


def test_who_answers_in_between_is_not(killed: list[Worker]) -> None:
    def work(worker: Worker) -> None:
        for _ in range(5):
            look(worker, ASKED_IN_VAIN)
            worker.admit(Pong())
        assert killed == []

    with_busy_worker(work)


def test_who_was_not_listened_to_has_all_its_time_again_and_may_still_answer(killed: list[Worker]) -> None:
    def work(worker: Worker) -> None:
        look(worker, ASKED_IN_VAIN)
        worker.excuse()
        look(worker, ASKED_IN_VAIN - 1)
        assert killed == []
        worker.admit(Pong())
        assert killed == []

    with_busy_worker(work)
