"""The state tables: every state is reachable, every absent pair is refused, SQL says the same as the enum."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from support.queues import new_task, open_store

from autodl_lib.contract.errors import WrongState
from autodl_lib.contract.states import INITIAL_STATES, PENDING, SETTLED, TRANSITIONS, TaskEvent, TaskState, Want
from autodl_lib.contract.task import OnConflict, TaskError
from autodl_lib.contract.worker_messages import ORDERS, REPORTS
from autodl_lib.contract.worker_states import LEASE_PERMITS, WORKER_MOVES, WORKER_PERMITS, LeasePhase, WorkerState
from autodl_lib.store.rows import Change
from autodl_lib.store.statements import migrations
from autodl_lib.store.transaction import Transaction


def paths_to_states() -> dict[TaskState, list[TaskEvent]]:
    """Return for each state the events that lead to it from `enqueued` (or from `paused`, where it begins)."""
    found: dict[TaskState, list[TaskEvent]] = {TaskState.ENQUEUED: []}
    queue = [TaskState.ENQUEUED]
    while queue:
        state = queue.pop(0)
        for (old, event), new in TRANSITIONS.items():
            if old is state and new not in found:
                found[new] = [*found[state], event]
                queue.append(new)
    return found


def change(event: TaskEvent) -> Change:
    retry_at = 1e10 if event in (TaskEvent.POSTPONE, TaskEvent.LOSE) else None
    error = TaskError(code="network", message="x") if event is TaskEvent.FAIL else None
    dest = "/tmp/x" if event is TaskEvent.FINISH else None
    return Change(event=event, retry_at=retry_at, error=error, dest=dest, forget_part=event is TaskEvent.FINISH)


def test_every_state_is_reachable() -> None:
    assert paths_to_states().keys() == set(TaskState)


def test_every_state_but_the_last_ones_can_be_left_and_finished_can_not() -> None:
    left = {state for state, _ in TRANSITIONS}
    assert set(TaskState) - left == {TaskState.FINISHED}


def test_every_event_moves_some_task() -> None:
    assert {event for _, event in TRANSITIONS} == set(TaskEvent)


def test_settled_and_pending_states_and_paused_are_all_states() -> None:
    assert SETTLED | PENDING | {TaskState.PAUSED} == set(TaskState)
    assert not SETTLED & PENDING
    assert not INITIAL_STATES & SETTLED


@pytest.mark.parametrize("state", TaskState)
@pytest.mark.parametrize("event", TaskEvent)
def test_the_store_applies_exactly_the_table(tmp_path: Path, state: TaskState, event: TaskEvent) -> None:
    async def walk() -> None:
        with open_store(tmp_path / "queue.db") as store:
            [task_id] = await store.write(lambda transaction: transaction.insert([new_task()]))
            for step in paths_to_states()[state]:
                await store.write(lambda transaction, step=step: transaction.apply(task_id, change(step)))
            before = store.read.task(task_id)
            log = store.read.log(task_id)
            assert before is not None
            assert before.state is state
            wanted = TRANSITIONS.get((state, event))

            def apply(transaction: Transaction) -> TaskState:
                return transaction.apply(task_id, change(event))

            if wanted is None:
                with pytest.raises(WrongState):
                    await store.write(apply)
                assert store.read.task(task_id) == before
                assert store.read.log(task_id) == log
            else:
                assert await store.write(apply) is wanted
                after = store.read.task(task_id)
                assert after is not None
                assert after.state is wanted
                assert store.read.log(task_id)[-1].event == event
                assert (after.finished_at is not None) == (wanted in SETTLED)

    asyncio.run(walk())


@pytest.mark.parametrize(
    ("column", "values"), [("state", list(TaskState)), ("want", list(Want)), ("on_conflict", list(OnConflict))]
)
def test_the_database_s_checks_list_the_enum(column: str, values: list[str]) -> None:
    [listed] = re.findall(rf"CHECK \({column} IN\s*\(([^)]*)\)\)", migrations()[0])
    assert re.findall(r"'(\w+)'", listed) == [str(value) for value in values]


def test_the_check_of_settled_states_lists_the_settled_states() -> None:
    [listed] = re.findall(r"\(finished_at IS NOT NULL\) = \(state IN \(([^)]*)\)\)", migrations()[0])
    assert set(re.findall(r"'(\w+)'", listed)) == SETTLED


def test_the_worker_s_tables_are_complete() -> None:
    kinds = {report.type for report in REPORTS}
    assert len(kinds) == len(REPORTS)
    assert len({order.type for order in ORDERS}) == len(ORDERS)
    assert WORKER_PERMITS.keys() == WORKER_MOVES.keys() == set(WorkerState)
    assert LEASE_PERMITS.keys() == set(LeasePhase)
    assert set().union(*WORKER_PERMITS.values()) == kinds
    by_lease = {kind for permits in LEASE_PERMITS.values() for kind in permits}
    assert by_lease | {"bound", "pong"} == kinds, "these two are of the worker, and of no assignment"
    assert LEASE_PERMITS[LeasePhase.ENDED] == {}
    assert WORKER_PERMITS[WorkerState.RETIRED] == WORKER_MOVES[WorkerState.RETIRED] == frozenset()


def test_every_state_of_a_worker_is_reachable_and_can_retire() -> None:
    reached = {WorkerState.SPAWNED}
    for _ in WorkerState:
        reached |= {new for old in reached for new in WORKER_MOVES[old]}
    assert reached == set(WorkerState)
    for state in set(WorkerState) - {WorkerState.RETIRED}:
        assert WorkerState.RETIRED in WORKER_MOVES[state]


def test_every_phase_but_publishing_and_discarding_is_reached_by_reports_and_all_can_end() -> None:
    by_report = {LeasePhase.ASSIGNED} | {
        new for phase, permits in LEASE_PERMITS.items() for new in permits.values() if new is not phase
    }
    assert set(LeasePhase) - by_report == {LeasePhase.PUBLISHING, LeasePhase.DISCARDING}, "these begin by an order"
    for phase in set(LeasePhase) - {LeasePhase.ENDED}:
        assert LeasePhase.ENDED in LEASE_PERMITS[phase].values()


def test_a_download_can_not_be_finished_before_it_was_ready_but_where_it_had_been_before() -> None:
    assert "finished" not in LEASE_PERMITS[LeasePhase.STARTED]
    assert "finished" not in LEASE_PERMITS[LeasePhase.READY]
