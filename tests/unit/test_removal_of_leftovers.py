"""What settled tasks have left is removed by a worker of its folder, wherever that is in its life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from support.leases import lease
from support.queues import new_tasks, open_store

from autodl_lib.contract.settings import Settings, TransferSection
from autodl_lib.contract.states import TaskEvent
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.contract.worker_messages import Discard
from autodl_lib.contract.worker_states import LeasePhase
from autodl_lib.store.rows import Change
from autodl_lib.supervisor import leftovers
from autodl_lib.supervisor.leftovers import remove_leftovers
from autodl_lib.supervisor.outcomes import Outcomes
from autodl_lib.supervisor.runner import Runner
from autodl_lib.supervisor.scheduling.rate_limits import RateLimits
from autodl_lib.supervisor.scheduling.user_limits import UserLimits
from autodl_lib.supervisor.workers.losses import Loss
from autodl_lib.supervisor.workers.pool import Pool
from autodl_lib.supervisor.workers.roster import Coming


def with_leftovers(path: Path, work: Callable[[Pool, Callable[[], bool]], None]) -> None:
    """Call with a pool, and what has the part files of cancelled tasks removed, three of folder /a and one of /b."""

    async def run() -> None:
        with open_store(path / "queue.db") as store:
            settings = Settings()
            users = UserLimits(settings)
            runner = Runner(store, settings, 10, users)
            pool = Pool(runner, "tag", TransferSection(), RateLimits(settings, {}, users))
            lot = new_tasks([("http://host/x", "host:80")] * 3, dir="/a")
            ids = await store.write(lambda transaction: transaction.insert([lot]))
            ids += await store.write(
                lambda transaction: transaction.insert([new_tasks([("http://host/x", "host:80")], dir="/b")])
            )
            for task_id in ids:
                cancelled = Change(event=TaskEvent.CANCEL, part=".x.autodl-part")
                await store.write(lambda transaction, to=(task_id, cancelled): transaction.apply(*to))  # type: ignore[misc]
            work(pool, lambda: remove_leftovers(store.read, pool, 10))

    asyncio.run(run())


def removed_by(coming: Coming) -> list[TaskId]:
    """The tasks whose part files a worker that is starting is to remove."""
    return [of.task_id for of, order in coming.work if isinstance(order, Discard)]


def test_a_worker_that_is_starting_is_given_them_for_when_it_is_there(tmp_path: Path) -> None:
    def work(pool: Pool, remove: Callable[[], bool]) -> None:
        coming = Coming(
            key="w",
            uid=Uid(1000),
            folder=pool.folder_of("/a"),
            work=[(lease(9), Discard(lease="9", dir="/a", part="p", tag="t"))],
        )
        pool.roster.starting["w"] = coming
        assert remove()
        assert removed_by(coming) == [9, 1, 2, 3]
        assert remove(), "they are there until it has said that they are gone"
        assert removed_by(coming) == [9, 1, 2, 3]

    with_leftovers(tmp_path, work)


def test_those_of_a_folder_that_hangs_and_those_that_somebody_is_at_keep_no_others_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_BATCH", 2)

    def work(pool: Pool, remove: Callable[[], bool]) -> None:
        monkeypatch.setattr(pool.hanging, "folders_of", lambda _: frozenset({"/a"}))
        coming = Coming(key="w", uid=Uid(1000), folder=pool.folder_of("/b"), work=[])
        pool.roster.starting["w"] = coming
        assert remove()
        assert removed_by(coming) == [4]
        monkeypatch.setattr(pool.hanging, "folders_of", lambda _: frozenset())
        assert remove(), "there are some whom no worker can serve now"

    with_leftovers(tmp_path, work)


def test_a_worker_that_is_lost_in_removing_one_does_not_leave_it_there_for_good(tmp_path: Path) -> None:
    """It may have been killed for want of memory; who always dies of it is not sent for ever."""

    async def run() -> None:
        with open_store(tmp_path / "queue.db") as store:
            outcomes = Outcomes(store, Settings().retry)
            [task_id] = await store.write(
                lambda transaction: transaction.insert([new_tasks([("http://host/x", "host:80")], dir="/a")])
            )
            cancelled = Change(event=TaskEvent.CANCEL, part=".x.autodl-part")
            await store.write(lambda transaction: transaction.apply(task_id, cancelled))
            removing = lease(int(task_id))
            removing.phase = LeasePhase.DISCARDING
            loss = Loss(lease=removing, blamed=True, no_account=False, reason="killed by signal 9")
            tries = 0
            while store.read.leftovers(10):
                await outcomes.record_losses([loss], {})
                tries += 1
            assert tries == 5

    asyncio.run(run())
