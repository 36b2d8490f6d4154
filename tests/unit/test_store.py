"""The queue on disk: commits that are shared, jobs that fail alone, numbers that are never used twice, old files."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from support.queues import all_tasks, new_task, new_tasks, open_store

from autodl_lib.contract.errors import InternalError, NoSuchTask, StoreUnusable, WrongState
from autodl_lib.contract.states import SETTLED, TaskEvent, TaskState, Want
from autodl_lib.contract.task import TaskError, TaskId, Uid
from autodl_lib.store.database import open_database
from autodl_lib.store.rows import Change, Clearing, Finish
from autodl_lib.store.statements import migrations
from autodl_lib.store.store import Store
from autodl_lib.store.transaction import Insertion, Transaction

OLD = Path(__file__).parent.parent / "data" / "queue-v1.db"


def with_store(path: Path, work: Callable[[Store], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        with open_store(path) as store:
            await work(store)

    asyncio.run(run())


def test_jobs_that_arrive_together_share_a_commit(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        commits = []
        store.listen(lambda moved: commits.append(sum(move.count for move in moved)))
        futures = [store.write(lambda transaction: transaction.insert([new_task()])) for _ in range(500)]
        numbers = [number for ids in await asyncio.gather(*futures) for number in ids]
        assert numbers == list(range(1, 501))
        assert sum(commits) == 500
        assert len(commits) < 100

    with_store(tmp_path / "queue.db", work)


def test_a_job_that_fails_changes_nothing_and_the_others_of_its_commit_stand(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        def fails(transaction: Transaction) -> None:
            transaction.insert([new_task(url="http://host/lost")])
            transaction.apply(TaskId(999), Change(event=TaskEvent.START))

        good, bad, after = (
            store.write(lambda transaction: transaction.insert([new_task()])),
            store.write(fails),
            store.write(lambda transaction: transaction.insert([new_task()])),
        )
        assert await good == [1]
        with pytest.raises(NoSuchTask):
            await bad
        [last] = await after
        assert last > 1
        assert [task.url for task in all_tasks(store)] == ["http://host/file"] * 2
        assert store.counters.of(None)[TaskState.ENQUEUED] == 2

    with_store(tmp_path / "queue.db", work)


@pytest.mark.parametrize("one_fails", [False, True])
def test_tasks_that_are_added_at_the_same_time_are_as_if_added_one_after_the_other(
    tmp_path: Path, one_fails: bool
) -> None:
    async def work(store: Store) -> None:
        lots = [
            new_task(url="http://host/a"),
            new_tasks([("http://host/b", "host:80"), ("http://host/c", "host:80")]),
            new_task(url="http://host/d", dir="/other"),
            new_task(url="http://host/e", uid=Uid(1001), owner="bob"),
            new_task(url="http://host/f"),
        ]
        if one_fails:
            lots.insert(3, new_task(url="http://host/\ud800"))
        # What is submitted while the thread is busy comes together.
        are_submitted = threading.Event()
        first = store.write(lambda _: are_submitted.wait())
        futures = [store.write(Insertion(lot=lot, actor=None)) for lot in lots]
        are_submitted.set()
        await first
        added = await asyncio.gather(*futures, return_exceptions=True)
        if one_fails:
            assert isinstance(added.pop(3), InternalError)
            del lots[3]
        urls = {task.id: (task.url, task.dir, task.uid) for task in all_tasks(store)}
        assert [[urls[task_id] for task_id in ids] for ids in added] == [  # type: ignore[union-attr]
            [(url, lot.dir, lot.uid) for url in lot.urls] for lot in lots
        ]
        numbers = [task_id for ids in added for task_id in ids]  # type: ignore[union-attr]
        assert numbers == sorted(numbers)
        assert store.counters.of(None)[TaskState.ENQUEUED] == len(numbers)

    with_store(tmp_path / "queue.db", work)


def test_a_defect_in_a_job_is_its_own_trouble(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        def breaks(transaction: Transaction) -> None:
            transaction.insert([new_task()])
            raise ZeroDivisionError

        broken = store.write(breaks)
        fine = store.write(lambda transaction: transaction.insert([new_task()]))
        with pytest.raises(Exception):  # noqa: B017, PT011
            await broken
        assert [task.id for task in all_tasks(store)] == await fine

    with_store(tmp_path / "queue.db", work)


def test_what_was_written_is_there_after_a_reopening_and_numbers_go_on(tmp_path: Path) -> None:
    async def first(store: Store) -> None:
        await store.write(lambda transaction: transaction.insert([new_task() for _ in range(3)]))

    async def second(store: Store) -> None:
        assert [task.id for task in all_tasks(store)] == [1, 2, 3]
        assert store.counters.of(Uid(1000))[TaskState.ENQUEUED] == 3
        assert await store.write(lambda transaction: transaction.insert([new_task()])) == [4]

    with_store(tmp_path / "queue.db", first)
    with_store(tmp_path / "queue.db", second)


def test_a_number_is_never_used_twice_even_when_its_task_is_forgotten(tmp_path: Path) -> None:
    async def first(store: Store) -> None:
        await store.write(lambda transaction: transaction.insert([new_task()]))
        await store.write(lambda transaction: transaction.apply(TaskId(1), Change(event=TaskEvent.CANCEL)))
        assert await store.write(lambda transaction: transaction.forget_settled(1e12, 10)) == 1
        assert store.read.task(TaskId(1)) is None

    async def second(store: Store) -> None:
        assert await store.write(lambda transaction: transaction.insert([new_task()])) == [2]

    with_store(tmp_path / "queue.db", first)
    with_store(tmp_path / "queue.db", second)


def test_counters_follow_every_move(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await store.write(lambda transaction: transaction.insert([new_task(uid=Uid(u)) for u in (1, 1, 2)]))
        await store.write(lambda transaction: transaction.apply(TaskId(1), Change(event=TaskEvent.START)))
        await store.write(lambda transaction: transaction.clear(Uid(2), Clearing(last=100, leased=[], limit=10)))
        assert store.counters.of(Uid(1))[TaskState.DOWNLOADING] == 1
        assert store.counters.of(Uid(2))[TaskState.CLEARED] == 1
        counted = {(uid, state): n for uid, state, n in store.read.counts()}
        assert counted == {
            (1, TaskState.DOWNLOADING): 1,
            (1, TaskState.ENQUEUED): 1,
            (2, TaskState.CLEARED): 1,
        }

    with_store(tmp_path / "queue.db", work)


def test_a_page_is_one_picture_while_tasks_move(tmp_path: Path) -> None:
    """Every task is on it exactly once, whatever the writer does meanwhile."""

    async def work(store: Store) -> None:
        ids = await store.write(lambda transaction: transaction.insert([new_task() for _ in range(200)]))

        def swing(transaction: Transaction) -> None:
            for task_id in ids[::2]:
                transaction.apply(task_id, Change(event=TaskEvent.PAUSE))
            for task_id in ids[1::2]:
                transaction.apply(task_id, Change(event=TaskEvent.START))

        def back(transaction: Transaction) -> None:
            for task_id in ids[::2]:
                transaction.apply(task_id, Change(event=TaskEvent.RESUME))
            for task_id in ids[1::2]:
                transaction.apply(task_id, Change(event=TaskEvent.INTERRUPT))

        for _ in range(30):
            moves = [store.write(swing), store.write(back)]
            while not all(move.done() for move in moves):
                page = all_tasks(store, Uid(1000))
                assert [task.id for task in page] == ids
                await asyncio.sleep(0)

    with_store(tmp_path / "queue.db", work)


def test_recovery_gives_back_what_ran_and_does_what_was_wanted(tmp_path: Path) -> None:
    from autodl_lib.contract.states import Want

    async def work(store: Store) -> None:
        await store.write(lambda transaction: transaction.insert([new_task() for _ in range(4)]))
        for number in (1, 2, 3):
            await store.write(lambda transaction, n=number: transaction.apply(TaskId(n), Change(event=TaskEvent.START)))
        await store.write(lambda transaction: transaction.want(TaskId(2), Want.PAUSE))
        await store.write(lambda transaction: transaction.want(TaskId(3), Want.CANCEL))
        await store.write(lambda transaction: transaction.recover())
        states = [task.state for task in all_tasks(store)]
        assert states == [TaskState.ENQUEUED, TaskState.PAUSED, TaskState.CANCELLED, TaskState.ENQUEUED]

    with_store(tmp_path / "queue.db", work)


def test_files_that_are_finished_together_end_as_each_of_them_would_alone(tmp_path: Path) -> None:
    def finish(task_id: TaskId) -> Finish:
        dest = f"/home/f/{task_id}.bin"
        return Finish(task_id=task_id, dest=dest, size_bytes=10, began_at=5.0, detail=f"{dest}, 10 bytes")

    async def work(store: Store) -> None:
        url = "http://alice:secret@host/file"
        ids = await store.write(lambda transaction: transaction.insert([new_task(url=url) for _ in range(4)]))
        quick, seen, paused, alone = ids
        await store.write(lambda transaction: transaction.apply(seen, Change(event=TaskEvent.START, started_at=4.0)))
        await store.write(lambda transaction: transaction.apply(paused, Change(event=TaskEvent.PAUSE)))
        lost = TaskId(999)
        refused = await store.write(
            lambda transaction: transaction.finish([finish(task_id) for task_id in (quick, paused, seen, lost)])
        )
        assert {task_id: type(error) for task_id, error in refused.items()} == {paused: WrongState, lost: NoSuchTask}
        await store.write(lambda transaction: transaction.finish([finish(alone)]))
        assert store.counters.of(None)[TaskState.FINISHED] == 3
        for task_id in (quick, seen, alone):
            task = store.read.task(task_id)
            assert task is not None
            assert (task.state, task.dest, task.name) == (
                TaskState.FINISHED,
                f"/home/f/{task_id}.bin",
                f"{task_id}.bin",
            )
            assert (task.bytes_done, task.bytes_total, task.attempts) == (10, 10, 1)
            assert (task.url, task.started_at) == ("http://***@host/file", 4.0 if task_id == seen else 5.0)
            assert [entry.event for entry in store.read.log(task_id)] == ["add", "start", "finish"]
            assert store.read.log(task_id)[-1].detail == f"{task.dest}, 10 bytes"
        assert {entry.id for entry in store.read.history(Uid(1000), 0.0, 10) if entry.event == "finish"} == set(ids) - {
            paused
        }
        assert [entry.event for entry in store.read.log(paused)] == ["add", "pause"]

    with_store(tmp_path / "queue.db", work)


def test_finished_without_a_file_is_refused_by_the_database_itself(tmp_path: Path) -> None:
    open_database(tmp_path / "queue.db").close()
    connection = sqlite3.connect(tmp_path / "queue.db")
    columns = "uid, owner, url, host, dir, on_conflict, created_at, finished_at"
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(
            f"INSERT INTO task ({columns}, state) VALUES (1, 'a', 'u', 'h', '/', 'rename', 1, 1, 'finished')"
        )
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(
            f"INSERT INTO task ({columns}, state) VALUES (1, 'a', 'u', 'h', '/', 'rename', 1, NULL, 'gone')"
        )
    connection.close()


def test_the_database_is_written_through_to_the_disk(tmp_path: Path) -> None:
    connection = open_database(tmp_path / "queue.db")
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert connection.execute("PRAGMA user_version").fetchone()[0] == len(migrations())
    connection.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"x" * len(data),
        lambda data: data[:1000],
        lambda data: data[:4096] + b"\xa5" * (len(data) - 4096),
    ],
    ids=["other bytes", "cut short", "pages of nonsense"],
)
def test_a_damaged_file_is_refused_and_not_touched(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "queue.db"

    async def fill(store: Store) -> None:
        await store.write(lambda transaction: transaction.insert([new_task() for _ in range(300)]))

    with_store(path, fill)
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match="damaged"):
        open_database(path)
    assert path.read_bytes() == before


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    open_database(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 1000")
    connection.close()
    with pytest.raises(StoreUnusable, match="version 1000"):
        open_database(path)


def test_an_empty_file_becomes_a_queue(tmp_path: Path) -> None:
    (tmp_path / "queue.db").touch()
    open_database(tmp_path / "queue.db").close()


def test_the_first_version_s_file_opens_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    shutil.copyfile(OLD, path)

    async def work(store: Store) -> None:
        tasks = {task.id: task for task in all_tasks(store)}
        assert {task.state for task in tasks.values()} == set(TaskState)
        finished = next(task for task in tasks.values() if task.state is TaskState.FINISHED)
        assert (finished.dest, finished.owner, finished.bytes_done) == ("/home/alice/file", "alice", 1234)
        for task in tasks.values():
            assert store.read.log(task.id)
            assert (task.finished_at is not None) == (task.state in SETTLED)
        failed = next(task for task in tasks.values() if task.state is TaskState.FAILED)
        assert failed.error is not None
        assert failed.error.code == "network"
        [(_, waiting, _, _)] = store.read.waiting(Uid(1000), 10)
        assert store.read.specs([waiting])[waiting].headers == ("Accept: text/plain",)
        assert store.read.holds() == {1001: None}
        highest = max(tasks)
        assert await store.write(lambda transaction: transaction.insert([new_task()])) == [highest + 1]
        assert await store.write(lambda transaction: transaction.recover()) == 1
        with pytest.raises(WrongState):
            await store.write(lambda transaction: transaction.apply(finished.id, Change(event=TaskEvent.RETRY)))

    with_store(path, work)


def test_tasks_behind_closed_hosts_are_found_best_first_without_reading_what_is_closed(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        queued = [("full:80", 9)] * 2000 + [(f"h{n % 40}:80", n % 3) for n in range(400)]
        tasks = [new_task(host=host, priority=priority) for host, priority in queued]
        await store.write(lambda transaction: transaction.insert([*tasks, new_task(uid=Uid(7), host="h1:80")]))
        await store.write(lambda transaction: transaction.want(TaskId(2003), Want.CANCEL))
        closed = {"full:80", "h0:80", "h39:80"}
        wanted = [
            (-priority, number, host)
            for number, (host, priority) in enumerate(queued, start=1)
            if host not in closed and number != 2003
        ]
        best_first = [(number, host, tasks[0].dir) for _, number, host in sorted(wanted)]
        assert store.read.waiting_elsewhere(Uid(1000), closed, 300) == best_first[:300]
        assert store.read.waiting_elsewhere(Uid(1000), closed, 10_000) == best_first
        assert store.read.waiting_elsewhere(Uid(1000), {host for host, _ in queued}, 10) == []
        assert store.read.waiting_elsewhere(Uid(8), set(), 10) == []

    with_store(tmp_path / "queue.db", work)


def test_how_long_a_task_has_been_stuck_is_remembered_until_it_begins_anew(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        [task_id] = await store.write(lambda transaction: transaction.insert([new_task()]))

        async def apply(event: TaskEvent, **known: Any) -> float | None:
            await store.write(lambda transaction: transaction.apply(task_id, Change(event=event, **known)))
            return store.read.specs([task_id])[task_id].stuck_since

        await apply(TaskEvent.START)
        assert await apply(TaskEvent.POSTPONE, retry_at=1e10, stuck_since=5.0) == 5.0
        assert await apply(TaskEvent.DUE) == 5.0
        assert await apply(TaskEvent.START) == 5.0
        assert await apply(TaskEvent.POSTPONE, retry_at=1e10) == 5.0
        assert await apply(TaskEvent.RETRY) is None

    with_store(tmp_path / "queue.db", work)


def test_only_tasks_that_wait_for_the_network_are_due_when_it_is_back(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        ids = await store.write(lambda transaction: transaction.insert([new_task() for _ in range(5)]))

        def postpone(transaction: Transaction) -> None:
            for task_id, code in zip(ids, ["network_down", "connect", "network_down", "disk_full"], strict=False):
                error = TaskError(code=code, message="x")
                transaction.apply(task_id, Change(event=TaskEvent.START))
                transaction.apply(task_id, Change(event=TaskEvent.POSTPONE, retry_at=1e10, error=error))

        await store.write(postpone)
        assert await store.write(lambda transaction: transaction.enqueue_network_down(1)) == 1
        assert await store.write(lambda transaction: transaction.enqueue_network_down(10)) == 1
        assert await store.write(lambda transaction: transaction.enqueue_network_down(10)) == 0
        states = [task.state.value for task in all_tasks(store)]
        assert states == ["enqueued", "retrying", "enqueued", "retrying", "enqueued"]

    with_store(tmp_path / "queue.db", work)


def test_a_step_of_clear_drops_what_would_run_next_and_nothing_that_came_later(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        lots = [new_task(priority=priority) for priority in (0, 5, 0, 5, 0)]
        await store.write(lambda transaction: transaction.insert([*lots, new_task(uid=Uid(7))]))
        last = await store.write(lambda transaction: transaction.last_clearable(Uid(1000)))
        assert last == 5
        await store.write(lambda transaction: transaction.insert([new_task(priority=9)]))

        async def clear() -> list[int]:
            scope = Clearing(last=last, leased={TaskId(3)}, limit=3)
            await store.write(lambda transaction: transaction.clear(Uid(1000), scope))
            return [task.id for task in all_tasks(store) if task.state is TaskState.CLEARED]

        assert await clear() == [1, 2, 4]
        assert await clear() == [1, 2, 4, 5]
        assert await clear() == [1, 2, 4, 5], "one is with a worker, one came later, one is another user's"
        assert [entry.event for entry in store.read.log(TaskId(4))] == ["add", "clear"]

    with_store(tmp_path / "queue.db", work)


def test_many_tasks_move_together_or_not_at_all(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        ids = await store.write(lambda transaction: transaction.insert([new_task(uid=Uid(u)) for u in (1, 2, 1)]))
        await store.write(lambda transaction: transaction.apply(ids[1], Change(event=TaskEvent.START)))
        await store.write(lambda transaction: transaction.apply(ids[2], Change(event=TaskEvent.CANCEL)))
        cancel = Change(event=TaskEvent.CANCEL)
        with pytest.raises(WrongState, match=f"task {ids[2]} is cancelled"):
            await store.write(lambda transaction: transaction.apply_all(ids, cancel))
        with pytest.raises(NoSuchTask):
            await store.write(lambda transaction: transaction.apply_all([ids[0], TaskId(99)], cancel))
        states = [task.state.value for task in all_tasks(store)]
        assert states == ["enqueued", "downloading", "cancelled"]
        moves: list[Any] = []
        store.listen(moves.extend)
        await store.write(lambda transaction: transaction.apply_all(ids[:2], cancel))
        assert {(move.ids, move.uid, move.old) for move in moves} == {
            ((ids[0],), 1, TaskState.ENQUEUED),
            ((ids[1],), 2, TaskState.DOWNLOADING),
        }
        assert [task.state for task in all_tasks(store)] == [TaskState.CANCELLED] * 3
        assert all(task.finished_at is not None for task in all_tasks(store))
        assert [entry.event for entry in store.read.log(ids[1])] == ["add", "start", "cancel"]
        assert store.counters.of(None)[TaskState.CANCELLED] == 3

    with_store(tmp_path / "queue.db", work)


def test_tasks_that_are_added_together_lie_together_whatever_their_numbers(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        for uid in (1, 2, 1, 2):
            lot = new_tasks([("http://host/x", "host:80")] * 50, uid=Uid(uid))
            await store.write(lambda transaction, lot=lot: transaction.insert([lot]))  # type: ignore[misc]
        connection = sqlite3.connect(tmp_path / "queue.db")
        uids = [uid for (uid,) in connection.execute("SELECT uid FROM task ORDER BY rowid")]
        connection.close()
        assert uids == [1] * 50 + [2] * 50 + [1] * 50 + [2] * 50

    with_store(tmp_path / "queue.db", work)


def test_what_is_due_is_found_before_what_waits_and_after_what_a_wrong_clock_postponed(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        ids = await store.write(lambda transaction: transaction.insert([new_task() for _ in range(4)]))
        for task_id, retry_at in zip(ids, (10.0, 500.0, 20.0, 9000.0), strict=True):
            start, postpone = Change(event=TaskEvent.START), Change(event=TaskEvent.POSTPONE, retry_at=retry_at)
            await store.write(lambda t, i=task_id, a=start, b=postpone: t.apply(i, a, b))  # type: ignore[misc]
        assert await store.write(lambda transaction: transaction.enqueue_due(100.0, 1000.0, 10)) == 3
        states = [task.state.value for task in all_tasks(store)]
        assert states == ["enqueued", "retrying", "enqueued", "enqueued"]

    with_store(tmp_path / "queue.db", work)
