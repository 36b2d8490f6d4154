"""Changes to tasks that workers have been handed ahead, by the thousand: each is told of, and others get in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.queues import new_tasks, open_store

from autodl_lib.contract.errors import WrongState
from autodl_lib.contract.requests.queue import Clear
from autodl_lib.contract.requests.tasks import Cancel
from autodl_lib.contract.settings import TransferSection
from autodl_lib.contract.states import TaskEvent, TaskState
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.store.rows import Actor, Change
from autodl_lib.store.store import Store
from autodl_lib.supervisor.handlers import steering
from autodl_lib.supervisor.handlers.steering import cancel, clear
from autodl_lib.supervisor.workers.assignments import lease_of
from autodl_lib.supervisor.workers.leases import Leases
from autodl_lib.supervisor.workers.worker_handle import Lease

ALICE = Uid(1000)
END = Change(event=TaskEvent.FINISH, dest="/tmp/f", name="f", forget_part=True)


class Steered:
    """A queue of ten tasks, of which a worker has seven, and who steers it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.leases = Leases()
        self.told: list[TaskId] = []
        self.pieces = 0
        self.left: set[asyncio.Task[None]] = set()
        self.quicker: set[int] = set()
        """These have been downloaded when the worker hears of it."""
        specs = store.read.specs([TaskId(number) for number in range(1, 8)])
        for spec in specs.values():
            self.leases.put(lease_of(spec, TransferSection(), ""), None)
        audit = SimpleNamespace(changed=lambda *_: None)
        holds = SimpleNamespace(clearing=steering_counter())
        runner = SimpleNamespace(holds=holds, changed=lambda: None, audit=audit)
        actor = Actor(uid=ALICE, name="alice", pid=1, program=None)
        service: Any = SimpleNamespace(store=store, pool=self, runner=runner)
        self.call: Any = SimpleNamespace(
            service=service,
            caller=SimpleNamespace(uid=ALICE, sees=ALICE, actor=actor),
            pace=SimpleNamespace(begin=lambda: None, next=self._pause),
            scope=lambda _: ALICE,
            log_change=lambda *_, **__: None,
        )

    async def _pause(self) -> None:
        self.pieces += 1
        await asyncio.sleep(0)

    def halt(self, lease: Lease, event: TaskEvent) -> None:
        self.told.append(lease.task_id)
        lease.outcome = event
        self.left.add(asyncio.get_running_loop().create_task(self._let_go(lease, event)))

    async def _let_go(self, lease: Lease, event: TaskEvent) -> None:
        changes = [Change(event=TaskEvent.START), END] if lease.task_id in self.quicker else [Change(event=event)]
        await self.store.write(lambda transaction: transaction.apply(lease.task_id, *changes))
        self.leases.drop(lease)
        lease.ended.set()

    def count(self, state: TaskState) -> int:
        return self.store.counters.count(ALICE, state)


def steering_counter() -> Any:
    return SimpleNamespace(update=lambda _: None, subtract=lambda _: None)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "_PIECE", 2)


def steered(path: Path, work: Callable[[Steered], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        with open_store(path / "queue.db") as store:
            lot = new_tasks([("http://host/x", "host:80")] * 10)
            await store.write(lambda transaction: transaction.insert([lot]))
            await work(Steered(store))

    asyncio.run(run())


def test_clear_drops_what_workers_have_not_begun_and_counts_it(tmp_path: Path) -> None:
    async def work(queue: Steered) -> None:
        await queue.store.write(lambda transaction: transaction.apply(TaskId(2), Change(event=TaskEvent.START)))
        queue.quicker = {5}
        answer = await clear(queue.call, Clear())
        assert queue.told == [1, 3, 4, 5, 6, 7]
        assert answer.cleared == queue.count(TaskState.CLEARED) == 8
        assert (queue.count(TaskState.DOWNLOADING), queue.count(TaskState.FINISHED)) == (1, 1)
        assert queue.pieces == 3 + 2, "of seven that workers had, and six that were told of"

    steered(tmp_path, work)


def test_thousands_are_cancelled_piece_by_piece(tmp_path: Path) -> None:
    async def work(queue: Steered) -> None:
        ids = tuple(range(1, 11))
        assert (await cancel(queue.call, Cancel(ids=ids))).ids == ids
        assert queue.told == [1, 2, 3, 4, 5, 6, 7]
        assert queue.count(TaskState.CANCELLED) == 10
        assert queue.pieces == 3 + 3

    steered(tmp_path, work)


def test_who_cancels_a_task_that_is_finished_by_then_is_told(tmp_path: Path) -> None:
    async def work(queue: Steered) -> None:
        queue.quicker = {6}
        with pytest.raises(WrongState, match="task 6 is finished"):
            await cancel(queue.call, Cancel(ids=tuple(range(1, 11))))
        assert queue.count(TaskState.CANCELLED) == 9

    steered(tmp_path, work)
