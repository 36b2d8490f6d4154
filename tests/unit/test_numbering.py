"""Numbers of tasks: short, ascending, never twice, and telling no user of others."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from support.queues import new_task

from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.store.database import open_database
from autodl_lib.store.numbering import Numbering
from autodl_lib.store.store import Store

ROOT, ALICE, BOB = Uid(0), Uid(1001), Uid(1002)


def numbering(path: Path, draws: list[int], *, separate: bool = True) -> Numbering:
    drawn = iter(draws)
    return Numbering(open_database(path), separate=separate, draw=lambda below: next(drawn) % below)


def test_the_daemon_of_one_user_counts(tmp_path: Path) -> None:
    numbers = numbering(tmp_path / "queue.db", [], separate=False)
    assert numbers.take(ALICE, 3) + numbers.take(ALICE, 1100) == list(range(1, 1104))


def test_a_user_s_numbers_are_the_same_whatever_others_add(tmp_path: Path) -> None:
    alone = numbering(tmp_path / "alone.db", [417])
    among = numbering(tmp_path / "among.db", [417, 3])
    mine = among.take(ALICE, 2)
    for uid in (BOB, ROOT):
        among.take(uid, 5000)
    assert mine + among.take(ALICE, 3) == alone.take(ALICE, 5) == [10417, 11417, 12417, 13417, 14417]


adds = st.lists(st.tuples(st.sampled_from([ROOT, ALICE, BOB, Uid(7)]), st.integers(0, 40_000)), max_size=8)


@given(adds)
def test_no_number_is_given_twice_and_each_user_s_ascend(adds: list[tuple[Uid, int]]) -> None:
    given_out: dict[Uid, list[TaskId]] = {}
    with tempfile.TemporaryDirectory() as folder:
        connection = open_database(Path(folder) / "queue.db")
        numbers = Numbering(connection, separate=True, draw=lambda below: below - 1)
        for uid, count in adds:
            given_out.setdefault(uid, []).extend(numbers.take(uid, count))
        connection.close()
    everything = [number for found in given_out.values() for number in found]
    assert len(everything) == len(set(everything))
    for found in given_out.values():
        assert found == sorted(found)
    assert given_out.get(ROOT, [])[:9999] == list(range(1, len(given_out.get(ROOT, [])[:9999]) + 1))


def test_users_beyond_the_last_series_share_them_and_still_no_number_is_given_twice(tmp_path: Path) -> None:
    numbers = Numbering(open_database(tmp_path / "queue.db"), separate=True, draw=lambda below: 0)
    found = [number for uid in range(1, 1000) for number in numbers.take(Uid(uid), 2)]
    assert len(found) == len(set(found))


def test_numbers_go_on_after_a_restart_and_after_tasks_are_forgotten(tmp_path: Path) -> None:
    async def add() -> list[TaskId]:
        store = Store(tmp_path / "queue.db", separate_numbers=True)
        ids = await store.write(lambda transaction: transaction.insert([new_task(uid=ALICE), new_task(uid=ALICE)]))
        store.close()
        return ids

    first = asyncio.run(add())
    connection = open_database(tmp_path / "queue.db")
    connection.execute("DELETE FROM task")
    connection.close()
    second = asyncio.run(add())
    assert [number - first[0] for number in first + second] == [0, 1000, 2000, 3000]
