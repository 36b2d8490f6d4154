"""Whose limits count, users' connections over all hosts, and what is forgotten of whom."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.queues import new_task, open_store

from autodl_lib.contract.errors import BadSettings
from autodl_lib.contract.settings import HistorySection, Settings, settings_from_toml
from autodl_lib.contract.states import TaskEvent, TaskState
from autodl_lib.contract.task import Gid, Uid
from autodl_lib.privilege.accounts import Account
from autodl_lib.store.rows import Actor, Change
from autodl_lib.store.transaction import Transaction
from autodl_lib.supervisor import housekeeping
from autodl_lib.supervisor.housekeeping import Housekeeper
from autodl_lib.supervisor.scheduling.host_ledger import HostLedger, user_key
from autodl_lib.supervisor.scheduling.user_limits import UserLimits

ALICE, BOB = Uid(1001), Uid(1002)
ACTOR = Actor(uid=ALICE, name="alice", pid=1, program="test")


def account(uid: Uid, name: str, *groups: str) -> Account:
    return Account(uid=uid, gid=Gid(1), name=name, home="/", shell="", groups=frozenset(groups))


def settings(text: str) -> Settings:
    return settings_from_toml(tomllib.loads(text), "file")


def test_a_user_s_own_table_wins_over_groups_and_groups_in_their_order_over_all() -> None:
    limits = UserLimits(
        settings(
            """
            [limits]
            running = 1
            weight = 2
            queued = 3
            connections = 4
            [users.alice]
            running = 10
            [groups.staff]
            running = 20
            weight = 20
            [groups.students]
            weight = 30
            queued = 30
            """
        )
    )
    assert limits.of(ALICE).running == 1, "nobody knows her name yet"
    limits.learn(account(ALICE, "alice", "students", "staff"))
    limits.learn(account(BOB, "bob", "students"))
    found = limits.of(ALICE)
    assert (found.running, found.weight, found.queued, found.connections) == (10, 20, 30, 4)
    assert (limits.of(BOB).running, limits.of(BOB).weight) == (1, 30)
    limits.configure(settings("[limits]\nrunning = 7\n"))
    assert limits.of(ALICE).running == limits.of(BOB).running == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[users.alice]\nruning = 3", r"unknown key users\.alice\.runing; did you mean users\.alice\.running\?"),
        ("[groups.staff]\nwait = 3", r"unknown key groups\.staff\.wait; did you mean groups\.staff\.weight\?"),
        ("[users]\nrunning = 3", r"users\.running must be a table: write \[users\.running\]"),
        ("users = 3", r"write \[users\.NAME\]"),
        ("[users.alice]\nweight = 0", r"users\.alice\.weight must be from 1 to 1000"),
    ],
)
def test_a_wrong_table_of_a_user_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(BadSettings, match=words):
        settings(text)


@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=30))
def test_a_user_s_connections_over_all_hosts_stay_within_their_limit(limit: int, steps: list[tuple[int, int]]) -> None:
    ledger = HostLedger()
    ledger.configure(1000, 4)
    key = user_key(ALICE)
    ledger.set_user_limit(key, limit)
    granted: dict[str, int] = {}
    answers: list[tuple[str, tuple[int, ...]]] = []
    for number, (what, want) in enumerate(steps):
        if what <= 2 and ledger.used(key) < limit:
            lease = f"l{number}"
            ledger.add(lease, f"w{number}", (f"h{want}:80", "mirror:80"), want, key)
            answers += ledger.balance({key: 1})
            granted[lease] = sum(ledger.first_grant(lease))
            answers += ledger.started(lease)
        elif what == 3 and granted:
            lease = sorted(granted)[want % len(granted)]
            del granted[lease]
            ledger.end(lease)
            answers = [answer for answer in answers if answer[0] != lease] + ledger.balance({})
        elif answers:
            lease, connections = answers.pop(0)
            granted[lease] = sum(connections)
            answers += ledger.yielded(lease, connections) or []
        # A raised grant may be used at once, before it is answered.
        for lease, connections in answers:
            granted[lease] = max(granted[lease], sum(connections))
        assert sum(granted.values()) <= limit
    for lease in list(granted):
        ledger.end(lease)
    ledger.balance({})
    assert ledger.is_empty()


def test_a_user_with_a_limit_has_at_least_one_connection_for_each_worker_and_the_rest_is_shared() -> None:
    ledger = HostLedger()
    ledger.configure(16, 4)
    key = user_key(ALICE)
    ledger.set_user_limit(key, 4)
    ledger.add("a", "w1", ("h1:80",), 8, key)
    ledger.balance({})
    assert ledger.first_grant("a") == (4,)
    assert ledger.started("a") == []
    # Another task could start: the first one is to give some up, and only then there is room.
    [(lease, lower)] = ledger.balance({key: 1})
    assert (lease, lower, ledger.used(key)) == ("a", (2,), 4)
    assert ledger.is_awaited("a")
    assert ledger.yielded("a", lower) == []
    assert ledger.used(key) == 2
    assert not ledger.is_awaited("a")


def test_of_tasks_that_were_settled_in_one_moment_no_more_are_forgotten_than_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is with all that one commit settles."""
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.0)

    async def work() -> None:
        with open_store(tmp_path / "queue.db") as store:

            def settle(transaction: Transaction) -> list[int]:
                ids = transaction.insert([new_task(uid=ALICE) for _ in range(30)], ACTOR)
                for task_id in ids:
                    transaction.apply(task_id, Change(event=TaskEvent.CANCEL, actor=ACTOR))
                return [int(task_id) for task_id in ids]

            ids = await store.write(settle)
            for _ in range(5):
                await store.write(lambda transaction: transaction.forget_settled_of(ALICE, 10, 7))
            assert store.counters.count(ALICE, TaskState.CANCELLED) == 10
            kept = [task_id for task_id in ids if store.read.task(task_id) is not None]
            assert kept == ids[-10:]

    asyncio.run(work())


def test_no_more_of_a_user_s_history_is_kept_than_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "PAUSE_S", 0)

    async def work() -> None:
        with open_store(tmp_path / "queue.db") as store:
            housekeeper = Housekeeper(store, HistorySection(keep_tasks=5, keep_events=12))

            def fill(transaction: Transaction) -> None:
                for uid, count in ((ALICE, 20), (BOB, 3)):
                    for task_id in transaction.insert([new_task(uid=uid) for _ in range(count)], ACTOR):
                        transaction.apply(task_id, Change(event=TaskEvent.CANCEL, actor=ACTOR))
                [kept] = transaction.insert([new_task(uid=ALICE)], ACTOR)
                for priority in range(100):
                    transaction.set_priority(kept, priority, ACTOR)

            await store.write(fill)
            newest = store.read.history(ALICE, 0.0, 12)
            housekeeper.start()
            while len(store.read.history(ALICE, 0.0, 1000)) > 12:
                await asyncio.sleep(0.01)
            housekeeper.stop()
            assert store.counters.count(ALICE, TaskState.CANCELLED) == 5
            assert store.counters.count(ALICE, TaskState.ENQUEUED) == 1
            assert store.counters.count(BOB, TaskState.CANCELLED) == 3
            assert store.read.history(ALICE, 0.0, 1000) == newest
            assert len(store.read.history(BOB, 0.0, 1000)) == 6

    asyncio.run(work())
