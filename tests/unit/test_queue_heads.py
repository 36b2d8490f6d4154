"""The heads of queues in memory: always those on disk, and read again only where something has happened."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from support.queues import new_task, open_store

from autodl_lib.contract.states import TaskEvent
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.store.reader import Reader
from autodl_lib.store.rows import Change, Clearing
from autodl_lib.store.transaction import Transaction
from autodl_lib.supervisor.scheduling.next_tasks import QueueHeads

ALICE, BOB = Uid(1000), Uid(1001)


def add(transaction: Transaction) -> Any:
    return transaction.insert([new_task(uid=ALICE), new_task(uid=BOB)])


def cancel(transaction: Transaction) -> Any:
    return transaction.apply(TaskId(1), Change(event=TaskEvent.CANCEL))


def put_first(transaction: Transaction) -> Any:
    return transaction.set_priority(TaskId(7), 5)


def move_to_another_host(transaction: Transaction) -> Any:
    return transaction.apply(TaskId(3), Change(event=TaskEvent.SET_URL, url="http://other/x", host="other:80"))


def queue_again(transaction: Transaction) -> Any:
    return transaction.apply_all([TaskId(1)], Change(event=TaskEvent.RETRY))


def clear(transaction: Transaction) -> Any:
    return transaction.clear(ALICE, Clearing(last=100, leased=(), limit=2))


def test_heads_in_memory_are_those_on_disk_after_every_change(tmp_path: Path) -> None:
    async def run() -> None:
        with open_store(tmp_path / "queue.db") as store:
            heads = QueueHeads(store.read)
            store.listen(lambda moved: heads.forget(move.uid for move in moved))
            seen = set()
            for change in (add, add, add, add, cancel, put_first, move_to_another_host, queue_again, clear):
                await store.write(change)
                for uid in (ALICE, BOB):
                    for limit in (3, 1, 2, 100):
                        assert heads.head(uid, limit) == store.read.waiting(uid, limit)
                seen.add(tuple(heads.head(ALICE, 10)))
            assert len(seen) == 9, "each change is seen"

    asyncio.run(run())


def test_a_user_to_whom_nothing_has_happened_is_not_looked_up_again(tmp_path: Path) -> None:
    asked: list[Uid] = []

    class Watched(Reader):
        def waiting(self, uid: Uid, limit: int) -> list[tuple[TaskId, str, str]]:
            asked.append(uid)
            return super().waiting(uid, limit)

    async def run() -> None:
        with open_store(tmp_path / "queue.db") as store:
            store.read.__class__ = Watched
            heads = QueueHeads(store.read)
            store.listen(lambda moved: heads.forget(move.uid for move in moved))
            await store.write(add)
            for _ in range(3):
                heads.head(ALICE, 5)
                heads.head(BOB, 5)
            assert asked == [ALICE, BOB]
            await store.write(cancel)
            heads.head(ALICE, 5)
            heads.head(BOB, 5)
            assert asked == [ALICE, BOB, ALICE]

    asyncio.run(run())
