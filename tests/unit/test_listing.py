"""Pages of tasks: every filter finds what it should, both ways, by an index, some steps at a time."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from pathlib import Path

import pytest
from support.queues import new_task, new_tasks, open_store

from autodl_lib.contract.states import TaskEvent, TaskState
from autodl_lib.contract.task import Task, TaskId, Uid
from autodl_lib.store import listing
from autodl_lib.store.database import open_database
from autodl_lib.store.listing import Selection
from autodl_lib.store.rows import Change
from autodl_lib.store.statements import SQL
from autodl_lib.store.store import Store

USERS = (Uid(1000), Uid(1001), Uid(1002))
HOSTS = ("a.org:80", "a.org:8080", "b.org:80", "a.organ:80")
LABELS = (None, "films", "music")
EVENTS = (None, None, TaskEvent.PAUSE, TaskEvent.CANCEL, TaskEvent.START)


async def fill(store: Store, count: int) -> None:
    """Queue tasks of all kinds, some moments apart."""
    draw = random.Random(count)
    for _ in range(count // 4):
        host = draw.choice(HOSTS)
        lot = new_tasks([(f"http://{host}/x", host)] * 4, uid=draw.choice(USERS), label=draw.choice(LABELS))
        ids = await store.write(lambda transaction, lot=lot: transaction.insert([lot]))  # type: ignore[misc]
        for task_id in ids:
            event = draw.choice(EVENTS)
            if event is not None:
                change = Change(event=event)
                await store.write(lambda t, i=task_id, change=change: t.apply(i, change))  # type: ignore[misc]


def fits(task: Task, selection: Selection, hosts: dict[TaskId, str]) -> bool:
    """Say whether a task is what was asked for, the long way."""
    host = hosts[task.id]
    return (
        (selection.users is None or task.uid in selection.users)
        and (not selection.states or task.state in selection.states)
        and (selection.host is None or selection.host in (host, host.rpartition(":")[0]))
        and (selection.label is None or task.label == selection.label)
        and (selection.since is None or task.created_at >= selection.since)
    )


def pages(store: Store, selection: Selection, limit: int) -> list[TaskId]:
    """Go through all pages."""
    found: list[TaskId] = []
    after: int | None = 0
    while after is not None:
        page = store.read.page(selection, after, limit)
        assert len(page.tasks) <= limit
        found += [task.id for task in page.tasks]
        after = page.next
    return found


@pytest.mark.parametrize("steps", [40, 2000], ids=["few steps at a time", "many steps at a time"])
def test_every_combination_of_filters_finds_each_task_once_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.setattr(listing, "STEPS_LIMIT", steps)

    async def run() -> None:
        with open_store(tmp_path / "queue.db") as store:
            await fill(store, 400)
            everything = [
                task for task_id in pages(store, Selection(users=None), 50) if (task := store.read.task(task_id))
            ]
            assert len(everything) == 400
            hosts = {task.id: task.url.removeprefix("http://").removesuffix("/x") for task in everything}
            middle = sorted(task.created_at for task in everything)[200]
            draw = random.Random(steps)
            for _ in range(150):
                selection = Selection(
                    users=draw.choice([None, USERS, USERS[:1], USERS[1:]]),
                    states=draw.choice([(), (TaskState.PAUSED,), (TaskState.ENQUEUED, TaskState.DOWNLOADING)]),
                    host=draw.choice([None, None, "a.org", "a.org:80", "b.org", "c.org"]),
                    label=draw.choice([None, None, "films", "books"]),
                    since=draw.choice([None, None, middle, 1e11]),
                    newest_first=draw.choice([False, True]),
                )
                expected = [task.id for task in everything if fits(task, selection, hosts)]
                expected.sort(reverse=selection.newest_first)
                assert pages(store, selection, draw.choice([1, 7, 100, 1000])) == expected, selection

    asyncio.run(run())


def test_a_page_costs_a_bounded_number_of_steps_where_nothing_fits(tmp_path: Path) -> None:
    async def run() -> None:
        with open_store(tmp_path / "queue.db") as store:
            lot = new_tasks([("http://host/x", "host:80")] * 3000)
            await store.write(lambda transaction: transaction.insert([lot]))
            rare = Selection(users=(Uid(1000),), host="host", states=(TaskState.FAILED,))
            page = store.read.page(rare, 0, 100)
            assert page.tasks == []
            assert page.next == listing.STEPS_LIMIT // 2, "half of them are for `host` without a port"

    asyncio.run(run())


class Anything(dict[str, None]):
    """Parameters of any name."""

    def __missing__(self, _: str) -> None:
        return None


def plans(connection: sqlite3.Connection, statement: str) -> str:
    """Return sqlite's plan of a statement, whatever its parameters."""
    bound = (None,) * statement.count("?") if "?" in statement else Anything()
    return "\n".join(row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + statement, bound))


ASKED_OF_ALL_TASKS = {"count_by_state"}
"""At the start, once: along an index."""


OF_FEW_TASKS = {"task_leftover", "task_downloading", "task_unwanted", "task_network"}
"""Indexes that hold only tasks that are to be gone through."""


SORTED_AGAIN = {"events_of"}
"""The newest entries of one task's log, of which there are LOG_LIMIT at most."""


def test_no_question_walks_the_whole_queue_or_sorts_it(tmp_path: Path) -> None:
    connection = open_database(tmp_path / "queue.db")
    try:
        questions = {name: text for name, text in SQL.items() if text.startswith(("SELECT", "WITH"))}
        questions["delete_events"] = SQL["delete_events"]
        questions |= listing._FORWARD | {f"reverse {name}": text for name, text in listing._BACKWARD.items()}
        assert len(questions) > 40
        for name, text in questions.items():
            if "$wanted" in text or name in ASKED_OF_ALL_TASKS:
                continue
            for step in plans(connection, text).splitlines():
                if step.startswith("SCAN task"):
                    assert step.removeprefix("SCAN task USING INDEX ").split()[0] in OF_FEW_TASKS, (name, step)
                assert not step.startswith("SCAN event"), (name, step)
                assert "TEMP B-TREE FOR ORDER BY" not in step or name in SORTED_AGAIN, (name, step)
        assert "USING COVERING INDEX task_by_state" in plans(connection, SQL["count_by_state"])
    finally:
        connection.close()


def test_the_way_of_each_filter_is_its_index(tmp_path: Path) -> None:
    connection = open_database(tmp_path / "queue.db")
    try:
        for statements in (listing._FORWARD, listing._BACKWARD):
            for filter_name in ("state", "host", "label"):
                key = {"state": "state", "host": "host", "label": "label"}[filter_name]
                plan = plans(connection, statements[f"along_{filter_name}"])
                assert f"INDEX task_by_{filter_name} (uid=? AND {key}=? AND id>? AND id<?)" in plan
            assert "(id>? AND id<?)" in plans(connection, statements["along_numbers"])
        assert "INDEX task_added (uid=? AND created_at>?)" in plans(connection, SQL["first_added"])
    finally:
        connection.close()


def test_a_task_of_an_old_queue_has_no_label(tmp_path: Path) -> None:
    async def run() -> None:
        with open_store(tmp_path / "queue.db") as store:
            await store.write(lambda transaction: transaction.insert([new_task(), new_task(label="films")]))
            labels = [task.label for task in store.read.page(Selection(users=None), 0, 10).tasks]
            assert labels == [None, "films"]
            assert json.dumps(labels)

    asyncio.run(run())
