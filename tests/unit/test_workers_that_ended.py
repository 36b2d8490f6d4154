"""A worker that has ended leaves nothing behind in the supervisor, which looks for cycles only seldom."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from collections.abc import Iterator
from multiprocessing import Pipe
from types import SimpleNamespace

import pytest
from support.leases import lease

from autodl_lib.supervisor.workers import deadlines
from autodl_lib.supervisor.workers.deadlines import Deadlines
from autodl_lib.supervisor.workers.worker_handle import Worker


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def begin() -> Worker:
    _, orders = Pipe(duplex=False)
    worker = Worker("w", lease(0), SimpleNamespace(pid=1), orders, os.pidfd_open(os.getpid()))  # type: ignore[arg-type]
    worker.on_exit(lambda: worker.move(worker.state), killed=lambda: worker.move(worker.state))
    return worker


def test_it_is_gone_without_a_look_for_cycles() -> None:
    async def run() -> weakref.ref[Worker]:
        worker = begin()
        worker.idle_timer = asyncio.get_running_loop().call_later(1000, worker.begin_turn)
        worker.release()
        return weakref.ref(worker)

    assert asyncio.run(run())() is None


def test_it_is_gone_when_the_deadlines_that_it_had_have_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BIND_TIMEOUT_S", "HALT_TIMEOUT_S", "GRANT_TIMEOUT_S"):
        monkeypatch.setattr(deadlines, name, 0.0)

    async def run() -> weakref.ref[Worker]:
        held_up = [True]
        watch = Deadlines(lambda _: False, lambda: bool(held_up and held_up.pop()))
        worker = begin()
        watch.to_report_for_duty(worker)
        watch.to_let_go(worker, lease(1))
        watch.to_answer_grant(worker, lease(1))
        watch.to_leave(worker)
        worker.release()
        gone = weakref.ref(worker)
        del worker
        async with asyncio.timeout(10):
            while gone() is not None:
                await asyncio.sleep(0)
        return gone

    assert asyncio.run(run())() is None
