"""How many workers many small files get."""

from __future__ import annotations

from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.supervisor.scheduling.crew import LOOK_EVERY_S, NO_LIMIT, Crew, idle_share, resting
from autodl_lib.supervisor.scheduling.picture import AssignTask, Snapshot, SpawnWorker, UserQueue, WorkerView
from autodl_lib.supervisor.scheduling.scheduler import plan

ALICE, BOB = Uid(1000), Uid(1001)


def quick(key: str, uid: Uid = ALICE, load: int = 1) -> WorkerView:
    """Make a busy worker of small files with room for more."""
    return WorkerView(key=key, uid=uid, load=load, room=100, is_quick=True)


def queue(uid: Uid, first: int, count: int) -> UserQueue:
    """Make a user's queue."""
    tasks = tuple((TaskId(number), "h:80", "") for number in range(first, first + count))
    return UserQueue(uid=uid, waiting=tasks, served=0.0, running_limit=10)


class Clock:
    """Time, and a crew that looks at it."""

    def __init__(self, idle: float = 0.01) -> None:
        self.idle = idle
        self.now = 1000.0
        self.crew = Crew(lambda: self.idle, 2)

    def look(self, quick_num: int, times: int) -> int:
        """Look several times; return the limit."""
        limit = NO_LIMIT
        for _ in range(times):
            self.now += LOOK_EVERY_S
            limit = self.crew.limit(min(quick_num, limit), self.now)
        return limit


def test_workers_are_sent_to_rest_while_the_processors_have_no_time_left() -> None:
    assert Clock().look(10, 20) == 2


def test_there_are_more_while_the_processors_are_idle() -> None:
    clock = Clock()
    clock.look(10, 20)
    clock.idle = 0.5
    assert clock.look(10, 6) > 8


def test_nothing_changes_while_the_processors_are_just_busy() -> None:
    clock = Clock()
    before = clock.look(10, 3)
    clock.idle = 0.05
    assert clock.look(10, 9) == before


def test_small_files_begin_with_a_worker_for_each_processor() -> None:
    clock = Clock()
    clock.look(10, 20)
    assert clock.look(0, 1) == 2


def test_one_idle_moment_brings_no_more_workers() -> None:
    clock = Clock()
    clock.look(10, 20)
    clock.idle = 0.5
    assert clock.look(10, 1) == 2


def test_there_are_no_more_where_the_limit_is_not_what_limits() -> None:
    clock = Clock()
    clock.look(10, 20)
    clock.idle = 0.5
    assert clock.look(1, 9) == 2


def test_there_is_no_limit_where_nobody_knows() -> None:
    def unknown() -> float:
        raise FileNotFoundError

    clock = Clock()
    clock.crew = Crew(unknown, 2)
    assert clock.look(10, 20) == NO_LIMIT


def test_what_is_idle_is_a_share() -> None:
    look = idle_share()
    look()
    assert 0 <= look() <= 1


def test_those_with_most_work_go_on_and_one_of_each_user() -> None:
    busy = [quick("a", load=3), quick("b", load=9), quick("c", load=1), quick("d", BOB, load=1)]
    assert resting(busy, 2) == {"a", "c"}
    assert resting(busy, 1) == {"a", "c"}
    assert resting(busy, 4) == set()


def test_slow_workers_never_rest() -> None:
    slow = WorkerView(key="s", uid=ALICE, load=1, room=100)
    assert resting([slow, quick("a"), quick("b")], 1) == {"a"}


def test_a_plan_starts_no_worker_more_than_the_limit_and_hands_ahead_instead() -> None:
    snapshot = Snapshot(
        slots=10, workers=(quick("a"), quick("b")), leaving=0, users=(queue(ALICE, 1, 50),), quick_limit=2
    )
    actions = plan(snapshot)
    assert {type(action) for action in actions} == {AssignTask}
    assert len(actions) == 50


def test_a_plan_starts_a_worker_for_who_has_none_whatever_the_limit() -> None:
    users = (queue(ALICE, 1, 50), queue(BOB, 100, 1))
    snapshot = Snapshot(slots=10, workers=(quick("a"), quick("b")), leaving=0, users=users, quick_limit=2)
    assert [action.uid for action in plan(snapshot) if isinstance(action, SpawnWorker)] == [BOB]


def test_a_plan_hands_nothing_to_a_worker_that_is_to_rest() -> None:
    workers = (quick("a", load=5), quick("b", load=1), quick("c", load=2))
    snapshot = Snapshot(slots=3, workers=workers, leaving=0, users=(queue(ALICE, 1, 50),), quick_limit=1)
    assert {action.worker_key for action in plan(snapshot) if isinstance(action, AssignTask)} == {"a"}
