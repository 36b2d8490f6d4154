"""A crash loses what an attempt had to say, not its progress: the next one's first report tells it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.queues import new_task, open_store

from autodl_lib.contract.settings import RetrySection
from autodl_lib.contract.states import TaskEvent
from autodl_lib.contract.task import TaskId
from autodl_lib.contract.worker_messages import Started
from autodl_lib.store.rows import Change
from autodl_lib.supervisor.outcomes import Outcomes
from autodl_lib.supervisor.workers.admission import Admitted
from autodl_lib.supervisor.workers.worker_handle import Lease, Worker


@pytest.mark.parametrize(("found", "stuck"), [(700, (0, None)), (500, (3, 1000.0))], ids=["more", "no more"])
def test_more_bytes_than_were_known_of_mean_that_the_task_is_not_stuck(
    found: int, stuck: tuple[int, float | None], tmp_path: Path
) -> None:
    path = tmp_path / "queue.db"

    async def work() -> None:
        with open_store(path) as store:
            [task_id] = await store.write(lambda transaction: transaction.insert([new_task()]))
            failed = Change(
                event=TaskEvent.POSTPONE,
                streak=3,
                stuck_since=1000.0,
                bytes_done=500,
                part=".f.autodl-part",
                retry_at=1.0,
            )
            start, due = Change(event=TaskEvent.START), Change(event=TaskEvent.DUE)
            await store.write(lambda transaction: transaction.apply(task_id, start, failed, due, start))
            await store.write(lambda transaction: transaction.recover())  # the daemon was killed in the next attempt
            spec = store.read.specs([task_id])[task_id]
            assert (spec.streak, spec.stuck_since) == (3, 1000.0)
            lease = _lease(task_id, spec.uid, spec.bytes_done)
            report = Started(
                lease=lease.id,
                name="f",
                part=".f.autodl-part",
                bytes_done=found,
                bytes_total=900,
                http_status=206,
            )
            worker = cast(Worker, SimpleNamespace(key="w"))
            await Outcomes(store, RetrySection()).record([Admitted(worker=worker, lease=lease, report=report)])
            # What this attempt comes to is told by the report that ends it.
            assert (lease.streak, lease.stuck_since) == (3, 1000.0)

    asyncio.run(work())
    with sqlite3.connect(path) as queue:
        assert queue.execute("SELECT streak, stuck_since FROM task").fetchone() == stuck


def _lease(task_id: TaskId, uid: Any, bytes_before: int) -> Lease:
    return Lease(
        id="l", task_id=task_id, uid=uid, streak=3, stuck_since=1000.0, bytes_before=bytes_before, identity=None
    )
