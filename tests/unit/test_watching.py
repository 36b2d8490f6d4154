"""The beginning of a `watch`: each task is looked at once, nothing that happens meanwhile is missed, or told unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.queues import new_task, open_store

from autodl_lib.contract.errors import NoSuchTask, StoreUnusable
from autodl_lib.contract.requests.following import Watch
from autodl_lib.contract.states import TaskEvent, TaskState
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.store.reader import Reader
from autodl_lib.store.rows import Change
from autodl_lib.store.store import Store
from autodl_lib.supervisor.clients.watchers import Subscription, Watchers
from autodl_lib.supervisor.handlers import context, questions
from autodl_lib.supervisor.handlers.context import Call
from autodl_lib.supervisor.handlers.questions import watch

ALICE, BOB = Uid(1000), Uid(1001)


class Following:
    """Alice's connection, and what it is sent."""

    def __init__(self, store: Store) -> None:
        self.watchers = Watchers(store.read.tasks, list, store.read.page)
        store.listen(self.watchers.committed)
        service: Any = SimpleNamespace(store=store, watchers=self.watchers, views=store.read.tasks)
        caller: Any = SimpleNamespace(uid=ALICE, sees=ALICE, is_admin=False)
        self.store = store
        self.between: Callable[[], Awaitable[Any]] = lambda: asyncio.sleep(0)
        self.shown: list[tuple[TaskId, TaskState]] = []
        self.saved: list[TaskId] = []
        self.subscribed: list[Subscription] = []
        pace: Any = SimpleNamespace(next=lambda: self.between())
        self.call = Call(
            service=service,
            caller=caller,
            pace=pace,
            subscribe=self._subscribe,
            unsubscribe=self._unsubscribe,
            send_tasks=lambda tasks: self.shown.extend((task.id, task.state) for task in tasks),
            send_saved=lambda saved: self.saved.extend(TaskId(number) for number in saved.ids),
            writable=lambda: True,
        )

    def _subscribe(self, subscription: Subscription) -> None:
        self.watchers.add(subscription)
        self.subscribed.append(subscription)

    def _unsubscribe(self, subscription: Subscription) -> None:
        self.watchers.remove(subscription)
        self.subscribed.remove(subscription)

    async def cancel(self, *task_ids: int) -> None:
        numbers = [TaskId(task_id) for task_id in task_ids]
        await self.store.write(lambda transaction: transaction.apply_all(numbers, Change(event=TaskEvent.CANCEL)))

    async def finish(self, task_id: int) -> None:
        start = Change(event=TaskEvent.START)
        end = Change(event=TaskEvent.FINISH, dest=f"/tmp/{task_id}", name=str(task_id), forget_part=True)
        await self.store.write(lambda transaction: transaction.apply(TaskId(task_id), start, end))


def following(path: Path, work: Callable[[Following], Coroutine[Any, Any, None]]) -> None:
    """Follow a queue in which 1 to 4 are Alice's, and 5 is Bob's."""

    async def run() -> None:
        with open_store(path / "queue.db") as store:
            lots = [new_task(uid=uid) for uid in (ALICE, ALICE, ALICE, ALICE, BOB)]
            await store.write(lambda transaction: transaction.insert(lots))
            await work(Following(store))

    asyncio.run(run())


async def _told(alice: Following, ended: int) -> None:
    """Wait until a follower was told of so many ended tasks."""
    while len(alice.saved) + sum(1 for _, state in alice.shown if state is TaskState.CANCELLED) < ended:
        await asyncio.sleep(0.005)


def test_each_task_is_shown_as_it_is(tmp_path: Path) -> None:
    async def work(alice: Following) -> None:
        await alice.cancel(2)
        watching = await watch(alice.call, Watch(ids=(3, 2, 1, 2)))
        assert (watching.tasks, watching.settled) == (3, 1)
        assert alice.shown == [(3, "enqueued"), (2, "cancelled"), (1, "enqueued")]

    following(tmp_path, work)


def test_who_waits_for_ends_is_shown_only_those(tmp_path: Path) -> None:
    async def work(alice: Following) -> None:
        await alice.cancel(2)
        await alice.finish(3)
        watching = await watch(alice.call, Watch(ids=(1, 2, 3, 4), ends=True, brief=True))
        assert (watching.tasks, watching.settled) == (4, 2)
        assert (alice.saved, alice.shown) == ([3], [(2, "cancelled")])
        await alice.finish(1)
        await alice.cancel(4)
        await _told(alice, 4)
        assert (alice.saved, alice.shown) == ([3, 1], [(2, "cancelled"), (4, "cancelled")])

    following(tmp_path, work)


@pytest.mark.parametrize("piece", [1, 2])
def test_what_happens_while_tasks_are_looked_at_is_told(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_PIECE", piece)
    monkeypatch.setattr(questions, "_PIECE", piece)

    async def work(alice: Following) -> None:
        left = [1, 2, 3, 4]

        async def between() -> None:
            if left:
                await alice.cancel(left.pop(0))

        alice.between = between
        await watch(alice.call, Watch(ids=(1, 2, 3, 4), ends=True))
        ended = 4 - len(left)
        assert ended
        async with asyncio.timeout(60):
            while {task_id for task_id, state in alice.shown if state is TaskState.CANCELLED} != set(
                range(1, ended + 1)
            ):
                await asyncio.sleep(0.005)

    following(tmp_path, work)


@pytest.mark.parametrize("ids", [(1, 5), (5, 1), (1, 77)])
def test_who_names_a_task_of_others_is_told_nothing_and_may_ask_again(ids: tuple[int, ...], tmp_path: Path) -> None:
    async def work(alice: Following) -> None:
        with pytest.raises(NoSuchTask):
            await watch(alice.call, Watch(ids=ids))
        assert alice.subscribed == []
        await alice.cancel(5, 1)
        await asyncio.sleep(0.1)
        assert alice.shown == []
        await watch(alice.call, Watch(ids=(1,)))
        assert alice.shown == [(1, "cancelled")]

    following(tmp_path, work)


def test_where_the_queue_can_not_be_read_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(alice: Following) -> None:
        broken = StoreUnusable("it is gone")

        def refuse(_: Reader, task_ids: Sequence[TaskId], viewer: Uid | None = None) -> None:
            raise broken

        monkeypatch.setattr(Reader, "states", refuse)
        with pytest.raises(StoreUnusable):
            await watch(alice.call, Watch(ids=(1, 5)))
        await alice.cancel(5, 1)
        await asyncio.sleep(0.1)
        assert (alice.subscribed, alice.shown) == ([], [])

    following(tmp_path, work)


def test_a_task_that_is_not_at_its_end_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        method = getattr(Reader, name)

        def ask(*arguments: Any) -> Any:
            asked.append(name)
            return method(*arguments)

        return ask

    for name in ("states", "tasks", "saved_files"):
        monkeypatch.setattr(Reader, name, noted(name))

    async def work(alice: Following) -> None:
        await watch(alice.call, Watch(ids=(1, 2, 3, 4), ends=True, brief=True))
        assert asked == ["states"]
        await alice.finish(1)
        await _told(alice, 1)
        assert asked == ["states", "saved_files"]

    following(tmp_path, work)
