"""What a plan says is carried out on the queue as it is then: what is remembered of it may be older by a commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from support.queues import new_tasks, open_store

from autodl_lib.contract.settings import Settings, TransferSection
from autodl_lib.contract.states import TaskEvent, Want
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.contract.worker_messages import Returned
from autodl_lib.contract.worker_states import LeasePhase
from autodl_lib.store.rows import Change, TaskSpec
from autodl_lib.store.store import Store
from autodl_lib.supervisor.runner import Runner
from autodl_lib.supervisor.scheduling.picture import WorkerView
from autodl_lib.supervisor.scheduling.rate_limits import RateLimits
from autodl_lib.supervisor.scheduling.user_limits import UserLimits
from autodl_lib.supervisor.workers.admission import Admitted
from autodl_lib.supervisor.workers.assignments import lease_of
from autodl_lib.supervisor.workers.losses import Loss
from autodl_lib.supervisor.workers.pool import Pool

ALICE = Uid(1000)


class OneWorker(Pool):
    """A pool with one worker, which has room for some tasks and begins none."""

    room = 4
    folder = ""

    @property
    def ready(self) -> bool:
        return True

    @property
    def confines(self) -> bool:
        return bool(self.folder)

    def views(self) -> tuple[tuple[WorkerView, ...], int]:
        load = len(self.leases)
        return (WorkerView(key="w", uid=ALICE, load=load, room=self.room, turn_room=4, folder=self.folder),), 0

    def assign(self, _: str, spec: TaskSpec, *, begins_turn: bool = False) -> None:
        self.leases.put(lease_of(spec, TransferSection(), self.folder), None)

    def spawn(self, spec: TaskSpec) -> None:
        raise AssertionError(f"a worker is there: {spec}")

    def has(self) -> list[TaskId]:
        return sorted(self.leases.tasks())


def with_runner(path: Path, work: Callable[[Store, Runner, OneWorker], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        with open_store(path / "queue.db") as store:
            settings = Settings()
            users = UserLimits(settings)
            runner = Runner(store, settings, 1, users)
            runner.changed = lambda: None  # type: ignore[method-assign]  # it plans when it is told to
            pool = OneWorker(runner, "tag", TransferSection(), RateLimits(settings, {}, users))
            runner.pool = pool
            lot = new_tasks([("http://host/x", "host:80")] * 10, dir="/a")
            await store.write(lambda transaction: transaction.insert([lot]))
            await work(store, runner, pool)

    asyncio.run(run())


def test_tasks_are_handed_out_in_their_order(tmp_path: Path) -> None:
    async def work(_: Store, runner: Runner, pool: OneWorker) -> None:
        runner._plan()
        assert pool.has() == [1, 2, 3, 4]

    with_runner(tmp_path, work)


def test_a_task_that_was_put_first_meanwhile_is_next(tmp_path: Path) -> None:
    async def work(store: Store, runner: Runner, pool: OneWorker) -> None:
        pool.room = 2
        runner._plan()
        await store.write(lambda transaction: transaction.set_priority(TaskId(9), 1))
        pool.room = 3
        runner._plan()
        assert pool.has() == [1, 2, 9]

    with_runner(tmp_path, work)


def test_a_task_that_is_not_to_run_any_more_on_disk_is_not_handed_out(tmp_path: Path) -> None:
    async def work(store: Store, runner: Runner, pool: OneWorker) -> None:
        runner._picture._heads.first(ALICE, 5, frozenset())
        await store.write(lambda transaction: transaction.want(TaskId(1), Want.PAUSE))  # as no commit tells
        runner._picture.take = lambda _: None  # type: ignore[method-assign]  # the news are still on their way
        await store.write(lambda transaction: transaction.apply(TaskId(2), Change(event=TaskEvent.CANCEL)))
        runner._plan()
        assert pool.has() == [3, 4]
        runner._plan()
        assert pool.has() == [3, 4, 5, 6], "and the others have its place"

    with_runner(tmp_path, work)


def test_what_a_worker_gave_back_is_looked_at_anew(tmp_path: Path) -> None:
    async def work(store: Store, runner: Runner, pool: OneWorker) -> None:
        pool.folder = "/a"
        for end in ("returned", "lost"):
            runner._plan()
            [lease] = [lease for lease in pool.leases.of_user(ALICE) if lease.task_id == 1]
            connection = store._writer._connection
            # The worker has found its folder at another path, and the task was too quick to be seen running.
            await store.write(lambda _: connection.execute("UPDATE task SET dir = '/b' WHERE id = 1"))  # noqa: B023
            if end == "returned":
                lease.phase = LeasePhase.ENDED
                worker: Any = SimpleNamespace(key="w")
                await runner.reported([Admitted(worker=worker, lease=lease, report=Returned(lease=lease.id))])
            else:
                await runner.lost([Loss(lease=lease, blamed=False, no_account=False, reason="")])
            assert runner._picture._heads.first(ALICE, 1, frozenset()) == [(1, "host:80", "/b")]
            await store.write(lambda _: connection.execute("UPDATE task SET dir = '/a' WHERE id = 1"))  # noqa: B023
            runner._picture.forget()

    with_runner(tmp_path, work)
