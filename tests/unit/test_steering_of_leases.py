"""What is ordered of tasks that workers have, in the very moment in which workers let go of them by themselves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.queues import new_tasks, open_store
from test_handing_out import ALICE, OneWorker

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.requests.queue import Clear, MaxTasks, Pause
from autodl_lib.contract.requests.tasks import Cancel
from autodl_lib.contract.settings import Settings, TransferSection
from autodl_lib.contract.states import TaskState
from autodl_lib.contract.task import TaskId
from autodl_lib.contract.worker_messages import Failed, Halted, Report, Returned
from autodl_lib.contract.worker_states import LeasePhase
from autodl_lib.store.rows import Actor
from autodl_lib.supervisor.handlers import steering
from autodl_lib.supervisor.runner import Runner
from autodl_lib.supervisor.scheduling.rate_limits import RateLimits
from autodl_lib.supervisor.scheduling.user_limits import UserLimits
from autodl_lib.supervisor.workers.admission import Admitted
from autodl_lib.supervisor.workers.worker_handle import Lease


class Place:
    """A queue of which a worker has the first tasks, and somebody who steers."""

    def __init__(self, store: Any, tasks_num: int, worker_has: int) -> None:
        settings = Settings()
        users = UserLimits(settings)
        self.store = store
        self.runner = Runner(store, settings, 1, users)
        self.runner.changed = lambda: None  # type: ignore[method-assign]
        self.pool = OneWorker(self.runner, "tag", TransferSection(), RateLimits(settings, {}, users))
        self.runner.pool = self.pool
        self.tasks_num, self.worker_has = tasks_num, worker_has
        self.ids: list[TaskId] = []
        self.between: list[Callable[[], Awaitable[None]]] = []
        self.logged: list[Any] = []
        self.begun: list[Lease] = []
        """What the worker is at, though nobody has heard of it."""
        caller = SimpleNamespace(
            uid=ALICE, sees=ALICE, is_admin=True, actor=Actor(uid=ALICE, name="a", pid=1, program=None)
        )
        self.call: Any = SimpleNamespace(
            service=SimpleNamespace(store=store, pool=self.pool, runner=self.runner, settings=settings),
            caller=caller,
            pace=SimpleNamespace(begin=lambda: None, next=self._next),
            log_change=lambda *what, **_: self.logged.append(what),
            scope=lambda _: ALICE,
        )

    async def _next(self) -> None:
        while self.between:
            await self.between.pop()()

    async def fill(self) -> None:
        lot = new_tasks([("http://host/x", "host:80")] * self.tasks_num, dir="/a")
        self.ids = await self.store.write(lambda transaction: transaction.insert([lot]))
        for spec in self.store.read.specs(self.ids[: self.worker_has]).values():
            self.pool.assign("w", spec)

    async def end(self, leases: Iterable[Lease], report: Callable[[Lease], Report]) -> None:
        """Have the worker end assignments."""
        batch = []
        for lease in leases:
            lease.phase = LeasePhase.ENDED
            batch.append(Admitted(worker=SimpleNamespace(key="w"), lease=lease, report=report(lease)))  # type: ignore[arg-type]
        await self.runner.reported(batch)

    async def give_back(self) -> None:
        """Have the worker give back what it was not told to let go of."""
        leases = [lease for lease in self.pool.leases.of_user(ALICE) if lease.outcome is None]
        await self.end(leases, lambda lease: Returned(lease=lease.id))

    async def obey(self) -> None:
        """Have the worker let go of what it was told to, for as long as this runs."""
        while True:
            await asyncio.sleep(0.001)
            leases = [lease for lease in self.pool.leases.of_user(ALICE) if lease.halting]
            if leases:
                await self.end(leases, _halted)
            recalled = [one for one in self.pool.leases.of_user(ALICE) if one.recalled and not one.recalled.is_set()]
            for lease in self.begun:
                if lease in recalled and lease.recalled:
                    lease.recalled.set()
            await self.end([lease for lease in recalled if lease not in self.begun], _returned)

    def states(self) -> Counter[TaskState]:
        return Counter(self.store.read.states(self.ids).values())


def _returned(lease: Lease) -> Returned:
    return Returned(lease=lease.id)


def _halted(lease: Lease) -> Halted:
    return Halted(lease=lease.id, bytes_done=0, bytes_received=0, part=None)


Work = Callable[[Place], Coroutine[Any, Any, None]]


def at_place(path: Path, tasks_num: int, worker_has: int, work: Work) -> None:
    async def run() -> None:
        with open_store(path / "queue.db") as store:
            place = Place(store, tasks_num, worker_has)
            await place.fill()
            obeying = asyncio.create_task(place.obey())
            async with asyncio.timeout(60):
                await work(place)
            obeying.cancel()

    asyncio.run(run())


ORDERS = {
    "cancel": (lambda place: steering.cancel(place.call, Cancel(ids=tuple(place.ids))), TaskState.CANCELLED),
    "pause": (lambda place: steering.pause(place.call, Pause(ids=tuple(place.ids))), TaskState.PAUSED),
    "clear": (lambda place: steering.clear(place.call, Clear()), TaskState.CLEARED),
}
EACH_ORDER = pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())


@EACH_ORDER
def test_what_a_worker_gives_back_in_the_moment_of_an_order_follows_it(order: Any, tmp_path: Path) -> None:
    give, end = order

    async def work(place: Place) -> None:
        await asyncio.gather(place.give_back(), give(place))
        assert place.states() == {end: 100}
        assert place.logged

    at_place(tmp_path, 100, 100, work)


@EACH_ORDER
def test_what_a_worker_gives_back_between_two_pieces_of_an_order_follows_it(order: Any, tmp_path: Path) -> None:
    give, end = order

    async def work(place: Place) -> None:
        place.between.append(place.give_back)
        await give(place)
        assert not place.between, "there were pieces"
        assert place.states() == {end: 500}
        assert place.logged

    at_place(tmp_path, 500, 500, work)


def test_clear_counts_what_came_back_while_it_dropped_the_rest(tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        async def give_back() -> None:
            await asyncio.sleep(0.01)
            await place.give_back()

        _, count = await asyncio.gather(give_back(), steering.clear(place.call, Clear()))
        assert count.cleared == 5000
        assert place.states() == {TaskState.CLEARED: 5000}

    at_place(tmp_path, 5000, 60, work)


@EACH_ORDER
def test_an_order_counts_also_for_what_a_hold_takes_back_in_that_moment(order: Any, tmp_path: Path) -> None:
    give, end = order

    async def work(place: Place) -> None:
        await asyncio.gather(steering.pause(place.call, Pause()), give(place))
        assert place.states() == {end: 500}

    at_place(tmp_path, 500, 500, work)


def test_a_hold_takes_back_what_has_not_begun_and_lets_the_rest_go_on(tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        leases = place.pool.leases.of_user(ALICE)
        begun, started = leases[0], leases[1]
        started.phase = LeasePhase.STARTED
        place.begun.append(begun)
        await steering.pause(place.call, Pause())
        assert place.pool.leases.of_user(ALICE) == [begun, started]
        assert place.states() == {TaskState.ENQUEUED: 500}
        assert {task.attempts for task in map(place.store.read.task, place.ids)} == {0}

    at_place(tmp_path, 500, 300, work)


def test_a_second_hold_waits_for_what_the_first_one_takes_back(tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        async def again() -> None:
            await asyncio.sleep(0)
            await steering.pause(place.call, Pause())
            assert {lease.phase for lease in place.pool.leases.of_user(ALICE)} <= {LeasePhase.ENDED}

        await asyncio.gather(steering.pause(place.call, Pause()), again())

    at_place(tmp_path, 100, 100, work)


def test_fewer_tasks_at_once_take_back_what_workers_were_handed_ahead(tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        place.runner.max_tasks_num = 3
        leases = place.pool.leases.of_user(ALICE)
        for number, is_taken_back in ((5, False), (4, True)):
            await steering.max_tasks(place.call, MaxTasks(max_tasks_num=number))
            assert {lease.recalled is not None for lease in leases} == {is_taken_back}

    at_place(tmp_path, 100, 100, work)


def test_so_does_a_configuration_that_is_read_again(tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        place.runner.set_max_tasks(place.runner.max_tasks_num - 1)  # as at SIGHUP
        assert all(lease.recalled is not None for lease in place.pool.leases.of_user(ALICE))

    at_place(tmp_path, 100, 100, work)


def test_a_host_that_asks_to_be_left_alone_gets_nothing_of_what_its_user_s_workers_were_handed_ahead(
    tmp_path: Path,
) -> None:
    async def work(place: Place) -> None:
        first, *others, elsewhere = place.pool.leases.of_user(ALICE)
        elsewhere.sources = ("other:80", "host:80")
        busy = {"code": FailureCode.SERVER_BUSY, "message": "503", "http_status": 503, "retry_after_s": 3000.0}
        kept = {"bytes_done": 0, "bytes_received": 0, "part": None}
        await place.end([first], lambda lease: Failed(lease=lease.id, **busy, **kept))  # type: ignore[arg-type]
        assert all(lease.recalled is not None for lease in others)
        assert elsewhere.recalled is None

    at_place(tmp_path, 100, 100, work)
