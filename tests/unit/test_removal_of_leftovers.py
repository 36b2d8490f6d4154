"""What settled tasks have left is removed by a worker of its folder, wherever that is in its life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from support.leases import lease
from support.queues import new_tasks, open_store

from autodl_lib.contract.settings import Settings, TransferSection
from autodl_lib.contract.states import TaskEvent
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.contract.worker_messages import Discard
from autodl_lib.store.rows import Change
from autodl_lib.supervisor.leftovers import remove_leftovers
from autodl_lib.supervisor.runner import Runner
from autodl_lib.supervisor.scheduling.rate_limits import RateLimits
from autodl_lib.supervisor.scheduling.user_limits import UserLimits
from autodl_lib.supervisor.workers.pool import Pool
from autodl_lib.supervisor.workers.roster import Coming


def with_leftovers(path: Path, work: Callable[[Pool, Callable[[], bool]], None]) -> None:
    """Call with a pool, and what has the part files of three cancelled tasks of one folder removed."""

    async def run() -> None:
        with open_store(path / "queue.db") as store:
            settings = Settings()
            users = UserLimits(settings)
            runner = Runner(store, settings, 10, users)
            pool = Pool(runner, "tag", TransferSection(), RateLimits(settings, {}, users))
            lot = new_tasks([("http://host/x", "host:80")] * 3, dir="/a")
            ids = await store.write(lambda transaction: transaction.insert([lot]))
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
        assert not remove(), "nothing is left to be asked for"
        assert removed_by(coming) == [9, 1, 2, 3]

    with_leftovers(tmp_path, work)
