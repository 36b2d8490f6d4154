"""The heads of queues in memory: always those on disk, and read again only where nobody can say what has happened."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import Any

import pytest
from support.queues import new_task, new_tasks, open_store

from autodl_lib.contract.errors import AutodlError
from autodl_lib.contract.states import TaskEvent, TaskState
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.store.reader import FIRST_PLACE, Place, Reader
from autodl_lib.store.rows import Change, Clearing, Moved
from autodl_lib.store.store import Store
from autodl_lib.store.transaction import Transaction
from autodl_lib.supervisor.scheduling import queue_heads
from autodl_lib.supervisor.scheduling.picture import WaitingTask
from autodl_lib.supervisor.scheduling.queue_heads import QueueHeads

ALICE, BOB = Uid(1000), Uid(1001)

Deed = Callable[[Transaction], Any]


class Watched(Reader):
    """A reader that notes what it is asked for, and may be told of a change on disk that nobody has heard of yet."""

    asked: list[tuple[Uid, int, Place]]

    def waiting(self, uid: Uid, limit: int, behind: Place = FIRST_PLACE) -> list[tuple[int, TaskId, str, str]]:
        self.asked.append((uid, limit, behind))
        return super().waiting(uid, limit, behind)


@contextlib.contextmanager
def heads_of_a_queue(path: Path) -> Iterator[tuple[Store, QueueHeads, Watched]]:
    """Open a queue, whose heads hear of each commit."""
    with open_store(path / "queue.db") as store:
        watched = Watched(store.read._connection)
        watched.asked = []
        heads = QueueHeads(watched)
        store.listen(heads.take)
        yield store, heads, watched


def on_disk(store: Store, uid: Uid, count: int, leased: Set[TaskId] = frozenset()) -> list[WaitingTask]:
    rows = [row[1:] for row in store.read.waiting(uid, 100_000) if row[1] not in leased]
    return rows[:count]


def tasks_of(head: Any) -> list[WaitingTask]:
    return [task for tasks in head.levels.values() for task in tasks.values()]


def many(count: int, **changes: Any) -> Deed:
    lot = new_tasks([(f"http://h{n % 3}/x", f"h{n % 3}:80") for n in range(count)], uid=ALICE, **changes)
    return lambda transaction: transaction.insert([lot])


def event(task_id: int, what: TaskEvent, **known: Any) -> Deed:
    return lambda transaction: transaction.apply(TaskId(task_id), Change(event=what, **known))


def events(task_ids: list[int], what: TaskEvent) -> Deed:
    return lambda transaction: transaction.apply_all([TaskId(number) for number in task_ids], Change(event=what))


def put_at(task_id: int, priority: int) -> Deed:
    return lambda transaction: transaction.set_priority(TaskId(task_id), priority)


def clear(transaction: Transaction) -> Any:
    return transaction.clear(ALICE, Clearing(last=100, leased=(), limit=2))


CHANGES: dict[str, Deed] = {
    "more come": many(2),
    "better ones come": many(2, priority=1),
    "worse ones come": many(2, priority=-1),
    "paused ones come": many(2, paused=True),
    "nothing comes": many(0),
    "others' come": lambda transaction: transaction.insert([new_task(uid=BOB)]),
    "the first is cancelled": event(1, TaskEvent.CANCEL),
    "some are cancelled": events([2, 3], TaskEvent.CANCEL),
    "one is put first": put_at(7, 5),
    "one is put last": put_at(1, -5),
    "one has another host": event(3, TaskEvent.SET_URL, url="http://other/x", host="other:80"),
    "one starts": event(1, TaskEvent.START),
    "one is queued again": lambda transaction: [
        event(1, TaskEvent.CANCEL)(transaction),
        event(1, TaskEvent.RETRY)(transaction),
    ],
    "a paused one goes on": lambda transaction: [
        event(2, TaskEvent.PAUSE)(transaction),
        event(2, TaskEvent.RESUME)(transaction),
    ],
    "one is interrupted": lambda transaction: [
        event(1, TaskEvent.START)(transaction),
        event(1, TaskEvent.INTERRUPT)(transaction),
    ],
    "some are cleared": clear,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("known", [0, 1, 3, 8, 100])
def test_heads_in_memory_are_those_on_disk_after_every_change(change: Deed, known: int, tmp_path: Path) -> None:
    async def run() -> None:
        with heads_of_a_queue(tmp_path) as (store, heads, _):
            await store.write(many(8))
            heads.first(ALICE, known, frozenset())
            await store.write(change)
            for uid in (ALICE, BOB):
                for count in (1, 3, 2, 100):
                    assert heads.first(uid, count, frozenset()) == on_disk(store, uid, count)

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(5))
def test_heads_in_memory_are_those_on_disk_whatever_happens(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)

    def anything(transaction: Transaction) -> None:
        number = TaskId(draw.randint(1, 120))
        with contextlib.suppress(AutodlError):
            match draw.randrange(5):
                case 0:
                    many(draw.randint(1, 9), priority=draw.choice([0, 0, 0, 1, -1]))(transaction)
                case 1:
                    transaction.set_priority(number, draw.randint(-1, 1))
                case _:
                    what = draw.choice([*TaskEvent])
                    known = {"retry_at": 1.0} if what in (TaskEvent.POSTPONE, TaskEvent.LOSE) else {}
                    if what is not TaskEvent.FINISH:
                        transaction.apply(number, Change(event=what, **known))

    async def run() -> None:
        with heads_of_a_queue(tmp_path) as (store, heads, watched):
            await store.write(many(100))
            for _ in range(200):
                await asyncio.gather(*[store.write(anything) for _ in range(draw.randint(1, 4))])
                leased = {TaskId(draw.randint(1, 120)) for _ in range(draw.choice([0, 3, 40]))}
                count = draw.choice([1, 2, 10, 300])
                assert heads.first(ALICE, count, leased) == on_disk(store, ALICE, count, leased)
                assert heads._size == sum(1 + len(tasks_of(head)) for head in heads._heads.values())
            assert len(watched.asked) < 300, "some changes are taken over"

    asyncio.run(run())


def test_what_was_read_is_not_read_again_while_tasks_are_handed_out_and_finish(tmp_path: Path) -> None:
    async def run() -> None:
        with heads_of_a_queue(tmp_path) as (store, heads, watched):
            await store.write(many(3000))
            leased: set[TaskId] = set()
            seen: list[TaskId] = []
            while found := heads.first(ALICE, 100, leased):
                leased.update(task[0] for task in found)
                seen += [task[0] for task in found]
                if len(leased) > 500:
                    over = sorted(leased)[:300]
                    await store.write(events(over, TaskEvent.CANCEL))
                    leased.difference_update(over)
                    await store.write(many(1, paused=True))
            assert seen == list(range(1, 3001)), "each once, in its order"
            read = sum(limit for _, limit, _ in watched.asked)
            assert read < 2 * 3000
            assert len(watched.asked) < 20

    asyncio.run(run())


def test_a_head_that_is_read_anew_behind_many_leases_takes_few_questions(tmp_path: Path) -> None:
    async def run() -> None:
        with heads_of_a_queue(tmp_path) as (store, heads, watched):
            await store.write(many(3000))
            leased = {TaskId(number) for number in range(1, 1501)}
            assert heads.first(ALICE, 1, leased) == on_disk(store, ALICE, 1, leased)
            assert len(watched.asked) < 13
            assert sum(limit for _, limit, _ in watched.asked) < 3 * 1500

    asyncio.run(run())


def test_better_tasks_are_looked_at_by_themselves_and_the_rest_stays_known(tmp_path: Path) -> None:
    async def run() -> None:
        with heads_of_a_queue(tmp_path) as (store, heads, watched):
            await store.write(many(500))
            heads.first(ALICE, 300, frozenset())
            watched.asked.clear()
            for priority in (10, 5, 10, 0, 10):
                await store.write(many(2, priority=priority))
                assert heads.first(ALICE, 300, frozenset()) == on_disk(store, ALICE, 300)
            assert [limit for _, limit, _ in watched.asked] == [2, 2, 2, 2]
            await store.write(many(1000, priority=1))
            assert heads.first(ALICE, 300, frozenset()) == on_disk(store, ALICE, 300)

    asyncio.run(run())


def test_a_user_to_whom_nothing_has_happened_is_not_looked_up_again(tmp_path: Path) -> None:
    async def run() -> None:
        with heads_of_a_queue(tmp_path) as (store, heads, watched):
            await store.write(lambda transaction: transaction.insert([new_task(uid=ALICE), new_task(uid=BOB)]))
            for _ in range(3):
                heads.first(ALICE, 5, frozenset())
                heads.first(BOB, 5, frozenset())
            assert [uid for uid, _, _ in watched.asked] == [ALICE, BOB]
            await store.write(put_at(1, 1))
            heads.first(ALICE, 5, frozenset())
            heads.first(BOB, 5, frozenset())
            assert [uid for uid, _, _ in watched.asked] == [ALICE, BOB, ALICE]

    asyncio.run(run())


def test_a_task_that_was_put_back_on_disk_is_not_shown_twice(tmp_path: Path) -> None:
    async def run() -> None:
        with open_store(tmp_path / "queue.db") as store:
            heads = QueueHeads(store.read)  # it hears of nothing: the news are still on their way
            await store.write(many(8))
            heads.first(ALICE, 1, frozenset())
            await store.write(put_at(1, -1))
            assert heads.first(ALICE, 8, frozenset()) == on_disk(store, ALICE, 8)

    asyncio.run(run())


def test_tasks_that_nobody_names_make_a_head_forgotten(tmp_path: Path) -> None:
    async def run() -> None:
        with heads_of_a_queue(tmp_path) as (store, heads, watched):
            await store.write(many(8))
            heads.first(ALICE, 8, frozenset())
            asked = len(watched.asked)
            heads.take([Moved(ids=(), uid=ALICE, old=TaskState.ENQUEUED, new=TaskState.CLEARED, count=3)])
            heads.first(ALICE, 8, frozenset())
            heads.take([Moved(ids=(), uid=ALICE, old=TaskState.RETRYING, new=TaskState.ENQUEUED, count=3)])
            heads.first(ALICE, 8, frozenset())
            assert len(watched.asked) == asked + 2

    asyncio.run(run())


def test_all_heads_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_heads, "MOST_REMEMBERED", 100)

    async def run() -> None:
        with heads_of_a_queue(tmp_path) as (store, heads, _):
            users = [Uid(1000 + number) for number in range(30)]
            for uid in users:
                folder = "/" + "x" * (4000 if uid == 1005 else 10)
                await store.write(
                    lambda transaction, uid=uid, folder=folder: transaction.insert(  # type: ignore[misc]
                        [new_tasks([("http://host/x", "host:80")] * 40, uid=uid, dir=folder)]
                    )
                )
            for count in (1, 5, 40):
                for uid in users:
                    assert heads.first(uid, count, frozenset()) == on_disk(store, uid, count)
                    assert heads._size <= 100
                    remembered = [task for head in heads._heads.values() for task in tasks_of(head)]
                    assert len(remembered) <= 100
                    assert sum(len(folder) for _, _, folder in remembered) < 100 * 300
            heads.forget()
            assert heads._size == 0

    asyncio.run(run())
