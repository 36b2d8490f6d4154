"""Who runs next: the limits that no plan may break, whatever the queue, and whose turn it is."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.supervisor.scheduler import (
    AssignTask,
    RetireWorker,
    Snapshot,
    SpawnWorker,
    UserQueue,
    WorkerView,
    plan,
)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    uids = st.integers(1, 4)
    workers = tuple(
        WorkerView(key=f"w{n}", uid=Uid(draw(uids)), load=draw(st.integers(0, 4)), room=draw(st.integers(1, 6)))
        for n in range(draw(st.integers(0, 8)))
    )
    numbers = iter(range(1, 1000))
    users = tuple(
        UserQueue(
            uid=Uid(uid),
            waiting=tuple(TaskId(next(numbers)) for _ in range(draw(st.integers(0, 8)))),
            served=draw(st.integers(0, 50)),
            running_limit=draw(st.integers(1, 8)),
        )
        for uid in draw(st.lists(uids, unique=True))
    )
    return Snapshot(slots=draw(st.integers(1, 8)), workers=workers, leaving=draw(st.integers(0, 4)), users=users)


@given(snapshots())
def test_a_plan_breaks_no_limit(snapshot: Snapshot) -> None:
    actions = plan(snapshot)
    workers = {worker.key: worker for worker in snapshot.workers}
    queues = {user.uid: user for user in snapshot.users}
    owner = {task_id: user.uid for user in snapshot.users for task_id in user.waiting}
    load = Counter({worker.key: worker.load for worker in snapshot.workers})
    busy_of = Counter(worker.uid for worker in snapshot.workers if worker.load)
    spawned, retired, given_out = 0, set(), []
    for action in actions:
        match action:
            case AssignTask(worker_key=key, task_id=task_id):
                assert workers[key].uid == owner[task_id], "a worker belongs to one user"
                assert key not in retired
                if not load[key]:
                    busy_of[workers[key].uid] += 1
                else:
                    assert load[key] < workers[key].room, "only as much ahead as there is room"
                load[key] += 1
                given_out.append(task_id)
            case SpawnWorker(uid=uid, task_id=task_id):
                assert owner[task_id] == uid
                spawned += 1
                busy_of[uid] += 1
                given_out.append(task_id)
            case RetireWorker(worker_key=key):
                assert not load[key], "only idle workers are retired"
                assert key not in retired
                retired.add(key)
    assert len(given_out) == len(set(given_out)), "no task twice"
    begun = {worker.uid for worker in snapshot.workers if worker.load}
    busy_before = sum(1 for worker in snapshot.workers if worker.load)
    assert sum(busy_of.values()) <= max(snapshot.slots, busy_before), "never more busy workers than slots"
    if spawned:
        assert len(workers) + snapshot.leaving + spawned <= snapshot.slots, "never more workers than slots"
    for uid, user in queues.items():
        before = sum(1 for worker in snapshot.workers if worker.load and worker.uid == uid)
        assert busy_of[uid] <= max(user.running_limit, before), "never more than the user's limit"
    for user in snapshot.users:
        mine = [task_id for task_id in given_out if owner[task_id] == user.uid]
        assert mine == list(user.waiting[: len(mine)]), "best first"
    assert begun is not None


@given(snapshots())
def test_no_slot_stays_free_while_somebody_could_use_it(snapshot: Snapshot) -> None:
    actions = plan(snapshot)
    started = [a for a in actions if isinstance(a, SpawnWorker | AssignTask)]
    if actions or not any(user.waiting for user in snapshot.users):
        return
    assert not started
    busy = Counter(worker.uid for worker in snapshot.workers if worker.load)
    if sum(busy.values()) >= snapshot.slots:
        return
    able = [user for user in snapshot.users if user.waiting and busy[user.uid] < user.running_limit]
    places = snapshot.slots - len(snapshot.workers) - snapshot.leaving
    nothing_to_retire = all(worker.load for worker in snapshot.workers)
    # A worker that is leaving makes the place that is waited for.
    assert not able or (places <= 0 and (nothing_to_retire or snapshot.leaving))


def idle_pool(slots: int, users: list[UserQueue]) -> Snapshot:
    return Snapshot(slots=slots, workers=(), leaving=0, users=tuple(users))


def queue(uid: int, count: int, served: int = 0, limit: int = 100) -> UserQueue:
    return UserQueue(
        uid=Uid(uid), waiting=tuple(TaskId(uid * 1000 + n) for n in range(count)), served=served, running_limit=limit
    )


@given(st.integers(1, 12), st.integers(1, 5))
def test_slots_are_shared_evenly_between_users(slots: int, users: int) -> None:
    actions = plan(idle_pool(slots, [queue(uid, 50) for uid in range(1, users + 1)]))
    counts = Counter(action.uid for action in actions if isinstance(action, SpawnWorker))
    assert sum(counts.values()) == slots
    shares = [counts[Uid(uid)] for uid in range(1, users + 1)]
    assert max(shares) - min(shares) <= 1


def test_who_was_served_longest_ago_goes_first() -> None:
    actions = plan(idle_pool(1, [queue(1, 5, served=9), queue(2, 5, served=3), queue(3, 5, served=7)]))
    assert actions == [SpawnWorker(uid=Uid(2), task_id=TaskId(2000))]


def test_an_idle_worker_of_the_owner_is_used_before_a_new_one_is_made() -> None:
    worker = WorkerView(key="w", uid=Uid(1), load=0, room=1)
    actions = plan(Snapshot(slots=5, workers=(worker,), leaving=0, users=(queue(1, 1),)))
    assert actions == [AssignTask(worker_key="w", task_id=TaskId(1000))]


def test_an_idle_worker_makes_way_for_another_user() -> None:
    worker = WorkerView(key="w", uid=Uid(1), load=0, room=1)
    actions = plan(Snapshot(slots=1, workers=(worker,), leaving=0, users=(queue(2, 1),)))
    assert actions == [RetireWorker(worker_key="w")]


def test_a_worker_that_is_leaving_still_takes_its_place() -> None:
    assert plan(Snapshot(slots=1, workers=(), leaving=1, users=(queue(1, 1),))) == []


def test_nothing_is_handed_ahead_while_a_user_has_nothing_at_all() -> None:
    worker = WorkerView(key="w", uid=Uid(1), load=1, room=48)
    actions = plan(Snapshot(slots=1, workers=(worker,), leaving=0, users=(queue(1, 10), queue(2, 10))))
    assert actions == []
