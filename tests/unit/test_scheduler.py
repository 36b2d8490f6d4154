"""Who runs next: the limits that no plan may break, whatever the queue, whose turn it is, and what full hosts do."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.supervisor.scheduling.board import most_freed
from autodl_lib.supervisor.scheduling.picture import (
    Action,
    AssignTask,
    MakeRoom,
    RetireWorker,
    Snapshot,
    SpawnWorker,
    UserQueue,
    WaitingTask,
    WorkerView,
)
from autodl_lib.supervisor.scheduling.scheduler import plan
from autodl_lib.supervisor.scheduling.strides import Strides

HOST_LIMIT = 3
HOSTS = ["a:80", "b:80", "c:80"]
FOLDERS = ["/x", "/y"]


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    uids = st.integers(1, 4)
    hosts = st.sampled_from(HOSTS)
    folders = st.sampled_from(FOLDERS)
    loads = [draw(st.integers(0, 4)) for _ in range(draw(st.integers(0, 8)))]
    workers = tuple(
        WorkerView(
            key=f"w{n}",
            uid=Uid(draw(uids)),
            load=load,
            room=draw(st.integers(1, 6)),
            turn_room=draw(st.integers(0, 6)),
            hosts=draw(st.frozensets(hosts, min_size=1, max_size=load)) if load else frozenset(),
            folder=draw(folders),
            is_quick=draw(st.booleans()),
            is_fresh=draw(st.booleans()),
        )
        for n, load in enumerate(loads)
    )
    numbers = iter(range(1, 1000))
    users = tuple(
        UserQueue(
            uid=Uid(uid),
            waiting=tuple((TaskId(next(numbers)), draw(hosts), draw(folders)) for _ in range(draw(st.integers(0, 8)))),
            served=draw(st.integers(0, 50)),
            running_limit=draw(st.integers(1, 8)),
            has_more=draw(st.booleans()),
            room=draw(st.integers(1, 6)),
            is_quick=draw(st.booleans()),
        )
        for uid in draw(st.lists(uids, unique=True))
    )
    used = Counter(host for worker in workers for host in worker.hosts)
    more = {host: draw(st.integers(0, 3)) for host in used}
    leaving = draw(st.integers(0, 12))
    return Snapshot(
        slots=draw(st.integers(1, 12)),
        workers=workers,
        leaving=leaving,
        freed=draw(st.integers(0, leaving)),
        users=users,
        host_limit=HOST_LIMIT,
        host_room={host: HOST_LIMIT - count - more[host] for host, count in used.items()},
    )


@given(snapshots())
def test_a_plan_breaks_no_limit(snapshot: Snapshot) -> None:
    actions = plan(snapshot)
    workers = {worker.key: worker for worker in snapshot.workers}
    queues = {user.uid: user for user in snapshot.users}
    owner = {task_id: user.uid for user in snapshot.users for task_id, _, _ in user.waiting}
    host_of = {task_id: host for user in snapshot.users for task_id, host, _ in user.waiting}
    folder_of = {task_id: folder for user in snapshot.users for task_id, _, folder in user.waiting}
    at = {worker.key: set(worker.hosts) for worker in snapshot.workers}
    newcomers: Counter[str] = Counter()
    load = Counter({worker.key: worker.load for worker in snapshot.workers})
    busy_of = Counter(worker.uid for worker in snapshot.workers if worker.load)
    spawned, retired, given_out = 0, set(), []
    for action in actions:
        match action:
            case AssignTask(worker_key=key, task_id=task_id):
                assert workers[key].uid == owner[task_id], "a worker belongs to one user"
                assert workers[key].folder == folder_of[task_id], "a worker serves one folder"
                assert key not in retired
                if not load[key]:
                    busy_of[workers[key].uid] += 1
                else:
                    assert load[key] < workers[key].room, "only as much ahead as there is room"
                load[key] += 1
                newcomers[host_of[task_id]] += host_of[task_id] not in at[key]
                at[key].add(host_of[task_id])
                given_out.append(task_id)
            case SpawnWorker(uid=uid, task_id=task_id):
                assert owner[task_id] == uid
                spawned += 1
                busy_of[uid] += 1
                newcomers[host_of[task_id]] += 1
                given_out.append(task_id)
            case RetireWorker(worker_key=key):
                assert not load[key], "only idle workers are retired"
                assert key not in retired
                retired.add(key)
            case MakeRoom(host=host, tasks=count):
                assert 0 < count <= snapshot.slots
                assert snapshot.host_room.get(host, HOST_LIMIT) - newcomers[host] <= 0, "only where there is none"
    for host, count in newcomers.items():
        assert count <= max(0, snapshot.host_room.get(host, HOST_LIMIT)), "never more workers than the host has room"
    assert len(given_out) == len(set(given_out)), "no task twice"
    begun = {worker.uid for worker in snapshot.workers if worker.load}
    busy_before = sum(1 for worker in snapshot.workers if worker.load)
    assert sum(busy_of.values()) <= max(snapshot.slots, busy_before), "never more busy workers than slots"
    if spawned:
        most = most_freed(snapshot.slots)
        staying = len(workers) - len(retired) + spawned + snapshot.leaving - min(snapshot.freed, most)
        assert staying <= snapshot.slots, "never more workers than slots but those that leave with nothing to do"
        assert len(workers) + snapshot.leaving + spawned <= snapshot.slots + most, "and of these only some"
    for uid, user in queues.items():
        before = sum(1 for worker in snapshot.workers if worker.load and worker.uid == uid)
        assert busy_of[uid] <= max(user.running_limit, before), "never more than the user's limit"
    for user in snapshot.users:
        mine = [task_id for task_id in given_out if owner[task_id] == user.uid]
        for alike in itertools.product(HOSTS, FOLDERS):
            there = [task_id for task_id, *where in user.waiting if (*where,) == alike]
            taken = [task_id for task_id in mine if (host_of[task_id], folder_of[task_id]) == alike]
            assert taken == there[: len(taken)], "best first"
    assert begun is not None


@given(snapshots())
def test_no_slot_stays_free_while_somebody_could_use_it(snapshot: Snapshot) -> None:
    actions = plan(snapshot)
    started = [a for a in actions if isinstance(a, SpawnWorker | AssignTask)]
    if any(not isinstance(action, MakeRoom) for action in actions) or not any(user.waiting for user in snapshot.users):
        return
    assert not started
    busy = Counter(worker.uid for worker in snapshot.workers if worker.load)
    if sum(busy.values()) >= snapshot.slots:
        return
    able = [
        user
        for user in snapshot.users
        if any(snapshot.host_room.get(host, HOST_LIMIT) > 0 for _, host, _ in user.waiting)
        and busy[user.uid] < user.running_limit
    ]
    places = snapshot.slots - len(snapshot.workers) - snapshot.leaving + min(snapshot.freed, most_freed(snapshot.slots))
    nothing_to_retire = all(worker.load for worker in snapshot.workers)
    # A worker that is leaving makes the place that is waited for.
    assert not able or (places <= 0 and (nothing_to_retire or snapshot.leaving))


def strangers(count: int) -> tuple[WorkerView, ...]:
    """Return workers of somebody else, at work."""
    return tuple(WorkerView(key=f"of 9, {n}", uid=Uid(9), load=1, room=1) for n in range(count))


def idle_pool(slots: int, users: list[UserQueue]) -> Snapshot:
    return Snapshot(slots=slots, workers=(), leaving=0, users=tuple(users))


def tasks(uid: int, count: int, host: str = "host:80", first: int = 0, folder: str = "") -> tuple[WaitingTask, ...]:
    return tuple((TaskId(uid * 1000 + n), host, folder) for n in range(first, first + count))


def queue(uid: int, count: int, served: int = 0, limit: int = 100) -> UserQueue:
    return UserQueue(uid=Uid(uid), waiting=tasks(uid, count), served=served, running_limit=limit)


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
    assert actions == [AssignTask(worker_key="w", task_id=TaskId(1000), begins_turn=True)]


def test_an_idle_worker_makes_way_for_another_user_s_at_once() -> None:
    workers = tuple(WorkerView(key=f"w{n}", uid=Uid(1), load=n, room=1) for n in range(4))
    actions = plan(Snapshot(slots=4, workers=workers, leaving=0, users=(queue(2, 1),)))
    assert actions == [RetireWorker(worker_key="w0"), SpawnWorker(uid=Uid(2), task_id=TaskId(2000))]


def test_of_few_slots_there_is_never_a_process_more() -> None:
    worker = WorkerView(key="w", uid=Uid(1), load=0, room=1)
    assert plan(Snapshot(slots=1, workers=(worker,), leaving=0, users=(queue(2, 1),))) == [RetireWorker(worker_key="w")]
    assert plan(Snapshot(slots=1, workers=(), leaving=1, freed=1, users=(queue(2, 1),))) == []


def test_a_worker_that_is_leaving_keeps_its_place_while_it_has_anything_to_do() -> None:
    def with_leaving(freed: int) -> list[Action]:
        workers = tuple(WorkerView(key=f"w{n}", uid=Uid(2), load=1, room=1) for n in range(3))
        return plan(Snapshot(slots=4, workers=workers, leaving=1, freed=freed, users=(queue(1, 1),)))

    assert with_leaving(freed=0) == []
    assert with_leaving(freed=1) == [SpawnWorker(uid=Uid(1), task_id=TaskId(1000))]


def test_no_place_is_handed_over_where_many_workers_are_on_their_way_out() -> None:
    idle = WorkerView(key="w", uid=Uid(1), load=0, room=1)
    busy = tuple(WorkerView(key=f"b{n}", uid=Uid(1), load=1, room=1) for n in range(19))
    actions = plan(Snapshot(slots=20, workers=(idle, *busy), leaving=5, freed=5, users=(queue(2, 1),)))
    assert actions == [RetireWorker(worker_key="w")], "its place is free when one of them has left"


def test_while_a_user_has_nothing_at_all_others_are_handed_ahead_what_fits_into_their_turn() -> None:
    def ahead(turn_room: int) -> int:
        worker = WorkerView(key="w", uid=Uid(1), load=1, room=48, turn_room=turn_room)
        actions = plan(Snapshot(slots=1, workers=(worker,), leaving=0, users=(queue(1, 10), queue(2, 10))))
        return len(actions)

    assert [ahead(turn_room) for turn_room in (0, 1, 4, 48)] == [0, 0, 3, 10]


def test_a_slot_goes_on_with_a_user_s_short_tasks_until_their_turn_is_over() -> None:
    def with_idle(turn_room: int) -> list[Action]:
        worker = WorkerView(key="w", uid=Uid(1), load=0, room=3, turn_room=turn_room)
        users = (queue(1, 10, served=5), queue(2, 1))
        return plan(Snapshot(slots=4, workers=(worker, *strangers(3)), leaving=0, users=users))

    assert with_idle(turn_room=2) == [
        AssignTask(worker_key="w", task_id=TaskId(1000)),
        AssignTask(worker_key="w", task_id=TaskId(1001)),
    ]
    assert with_idle(turn_room=0) == [RetireWorker(worker_key="w"), SpawnWorker(uid=Uid(2), task_id=TaskId(2000))]


def test_a_turn_that_is_not_over_is_nobody_s_who_has_nothing_to_run_there() -> None:
    worker = WorkerView(key="w", uid=Uid(1), load=0, room=3, turn_room=2, folder="/x")
    for users in ([queue(2, 1)], [queue(1, 10, served=5), queue(2, 1)]):
        actions = plan(Snapshot(slots=4, workers=(worker, *strangers(3)), leaving=0, users=tuple(users)))
        assert actions == [RetireWorker(worker_key="w"), SpawnWorker(uid=Uid(2), task_id=TaskId(2000))]


def test_a_turn_ends_at_the_limits_of_its_user() -> None:
    idle = WorkerView(key="w", uid=Uid(1), load=0, room=3, turn_room=2)
    busy = WorkerView(key="b", uid=Uid(1), load=1, room=1)
    user = UserQueue(uid=Uid(1), waiting=tasks(1, 5), served=0, running_limit=1)
    actions = plan(Snapshot(slots=4, workers=(idle, busy, *strangers(2)), leaving=0, users=(user, queue(2, 1))))
    assert actions == [RetireWorker(worker_key="w"), SpawnWorker(uid=Uid(2), task_id=TaskId(2000))]


def test_a_few_small_files_in_a_folder_start_one_worker_and_many_start_more() -> None:
    def spawned(count: int, *, has_more: bool = False) -> int:
        user = UserQueue(
            uid=Uid(1),
            waiting=tasks(1, count, folder="/x"),
            served=0,
            running_limit=9,
            is_quick=True,
            room=20,
            has_more=has_more,
        )
        actions = plan(Snapshot(slots=9, workers=(), leaving=0, users=(user,)))
        return sum(isinstance(action, SpawnWorker) for action in actions)

    assert [spawned(count) for count in (1, 5, 20, 21, 40, 60, 300)] == [1, 1, 1, 2, 2, 3, 9]
    assert spawned(5, has_more=True) == 5, "nobody knows how many there are"


def test_where_small_files_have_a_worker_with_room_the_next_folder_gets_one() -> None:
    worker = WorkerView(key="q", uid=Uid(1), load=5, room=50, folder="/x", hosts=frozenset({"host:80"}), is_quick=True)
    user = UserQueue(
        uid=Uid(1),
        waiting=(*tasks(1, 30, folder="/x"), *tasks(1, 30, first=30, folder="/y")),
        served=0,
        running_limit=9,
        is_quick=True,
        room=50,
    )
    actions = plan(Snapshot(slots=9, workers=(worker,), leaving=0, users=(user,)))
    assert [action.task_id for action in actions if isinstance(action, SpawnWorker)] == [1030]
    ahead = [action.task_id for action in actions if isinstance(action, AssignTask)]
    assert ahead == [task_id for task_id, _, _ in tasks(1, 30)]


def test_an_idle_worker_that_gets_a_small_file_gets_the_next_ones_with_it() -> None:
    worker = WorkerView(key="w", uid=Uid(1), load=0, room=4)
    actions = plan(Snapshot(slots=1, workers=(worker,), leaving=0, users=(queue(1, 10),)))
    assert [action.task_id for action in actions if isinstance(action, AssignTask)] == [1000, 1001, 1002, 1003]


def test_small_tasks_of_one_host_are_handed_ahead_to_a_worker_that_is_there_though_the_host_is_full() -> None:
    worker = WorkerView(key="w", uid=Uid(1), load=1, room=128, hosts=frozenset({"host:80"}))
    actions = plan(
        Snapshot(slots=4, workers=(worker,), leaving=0, users=(queue(1, 200),), host_limit=1, host_room={"host:80": 0})
    )
    ahead = [action.task_id for action in actions if isinstance(action, AssignTask)]
    assert ahead == [task_id for task_id, _, _ in tasks(1, 127)]
    assert actions[-1] == MakeRoom(host="host:80", tasks=3)


def test_a_task_of_a_full_host_lets_those_of_other_hosts_go_first() -> None:
    user = UserQueue(uid=Uid(1), waiting=tasks(1, 3, "full:80") + tasks(1, 2, "open:80", 3), served=0, running_limit=9)
    actions = plan(
        Snapshot(slots=2, workers=(), leaving=0, users=(user,), host_limit=4, host_room={"full:80": 0, "open:80": 4})
    )
    assert actions == [SpawnWorker(uid=Uid(1), task_id=TaskId(1003)), SpawnWorker(uid=Uid(1), task_id=TaskId(1004))]


def test_no_more_workers_start_on_a_host_than_it_has_room_for() -> None:
    actions = plan(
        Snapshot(slots=8, workers=(), leaving=0, users=(queue(1, 8),), host_limit=4, host_room={"host:80": 2})
    )
    assert sum(isinstance(action, SpawnWorker) for action in actions) == 2
    assert actions[-1] == MakeRoom(host="host:80", tasks=6)


def test_who_has_a_full_host_takes_no_more_of_it_ahead_while_another_user_waits_for_it() -> None:
    worker = WorkerView(key="w", uid=Uid(1), load=1, room=48, hosts=frozenset({"host:80"}))
    full = Snapshot(
        slots=1, workers=(worker,), leaving=0, users=(queue(1, 10), queue(2, 1)), host_limit=1, host_room={"host:80": 0}
    )
    assert plan(full) == []


@given(st.integers(1, 40), st.dictionaries(st.integers(1, 5), st.integers(1, 6), min_size=1))
def test_slots_are_shared_by_weight(slots: int, weights: dict[int, int]) -> None:
    users = [
        UserQueue(uid=Uid(uid), waiting=tasks(uid, slots), served=0, running_limit=100, weight=weight)
        for uid, weight in weights.items()
    ]
    actions = plan(idle_pool(slots, users))
    counts = Counter(action.uid for action in actions if isinstance(action, SpawnWorker))
    assert sum(counts.values()) == slots
    for uid, weight in weights.items():
        fair = slots * weight / sum(weights.values())
        # Less than the fair share only by what can't be divided: the others are no more than one of theirs ahead.
        for other, weight_of_other in weights.items():
            assert (counts[Uid(other)] - 1) / weight_of_other <= counts[Uid(uid)] / weight, (fair, counts)


def test_turns_come_by_weight_where_there_is_one_slot() -> None:
    strides = Strides()
    weights = {Uid(1): 1, Uid(2): 3}
    served: Counter[Uid] = Counter()
    for _ in range(400):
        users = []
        for uid, weight in weights.items():
            turn = strides.turn_of(uid)
            users.append(
                UserQueue(
                    uid=uid,
                    waiting=tasks(uid, 1),
                    served=turn.served_pass,
                    last=turn.last,
                    running_limit=1,
                    weight=weight,
                )
            )
        [action] = plan(idle_pool(1, users))
        assert isinstance(action, SpawnWorker)
        strides.served(action.uid, weights[action.uid])
        served[action.uid] += 1
    assert served == {Uid(1): 100, Uid(2): 300}


def test_who_comes_back_is_next_and_has_saved_nothing_up() -> None:
    strides = Strides()
    for _ in range(100):
        strides.served(Uid(1), 1)
        strides.served(Uid(2), 1)
    first, second = strides.turn_of(Uid(1)), strides.turn_of(Uid(3))
    assert (second.served_pass, second.last) < (first.served_pass, first.last)
    strides.served(Uid(3), 1)
    assert strides.turn_of(Uid(3)).served_pass >= first.served_pass


def test_who_has_nothing_running_is_next_whoever_s_turn_it_is() -> None:
    busy = tuple(WorkerView(key=f"w{n}", uid=Uid(1), load=1, room=1) for n in range(3))
    users = (
        UserQueue(uid=Uid(1), waiting=tasks(1, 9), served=0, running_limit=9, weight=1000),
        UserQueue(uid=Uid(2), waiting=tasks(2, 1), served=50, running_limit=9),
    )
    actions = plan(Snapshot(slots=4, workers=busy, leaving=0, users=users))
    assert actions == [SpawnWorker(uid=Uid(2), task_id=TaskId(2000))]


def test_each_place_that_is_made_for_a_user_is_kept_for_them() -> None:
    workers = tuple(WorkerView(key=f"w{n}", uid=Uid(1), load=n // 2, room=1) for n in range(4))
    actions = plan(Snapshot(slots=4, workers=workers, leaving=0, users=(queue(1, 9), queue(2, 9))))
    assert actions == [
        RetireWorker(worker_key="w1"),
        SpawnWorker(uid=Uid(2), task_id=TaskId(2000)),
        RetireWorker(worker_key="w0"),
    ], "the second place is free when its worker has left"


def test_each_place_that_will_become_free_for_a_user_is_kept_for_them() -> None:
    workers = tuple(WorkerView(key=f"w{n}", uid=Uid(1), load=n // 2, room=1) for n in range(4))
    many = most_freed(4)
    actions = plan(Snapshot(slots=4, workers=workers, leaving=many, freed=many, users=(queue(1, 9), queue(2, 9))))
    assert sorted(actions, key=str) == [RetireWorker(worker_key="w0"), RetireWorker(worker_key="w1")]


def test_workers_of_who_has_more_than_their_share_get_nothing_ahead() -> None:
    def snapshot(first: int, second: int) -> Snapshot:
        counts = {1: first, 2: second}
        workers = tuple(
            WorkerView(key=f"{uid}-{n}", uid=Uid(uid), load=1, room=8)
            for uid, count in counts.items()
            for n in range(count)
        )
        return Snapshot(slots=first + second, workers=workers, leaving=0, users=(queue(1, 90), queue(2, 90)))

    def fed(snapshot: Snapshot) -> set[str]:
        return {action.worker_key[0] for action in plan(snapshot) if isinstance(action, AssignTask)}

    assert fed(snapshot(5, 1)) == {"2"}
    assert fed(snapshot(3, 3)) == {"1", "2"}
    assert fed(snapshot(4, 3)) == {"1", "2"}, "that can't be divided any better"


def test_workers_get_nothing_ahead_while_there_are_more_of_them_than_slots() -> None:
    workers = tuple(WorkerView(key=f"w{n}", uid=Uid(1), load=1, room=8) for n in range(4))
    assert plan(Snapshot(slots=2, workers=workers, leaving=0, users=(queue(1, 90),))) == []


def busy(key: str, folder: str, load: int = 20, *, is_fresh: bool = False) -> WorkerView:
    """Make a worker of small files that is at work in a folder, with room for 100."""
    return WorkerView(
        key=key, uid=Uid(1), load=load, room=100, hosts=frozenset({"host:80"}), folder=folder, is_fresh=is_fresh
    )


def two_folders(count: int) -> UserQueue:
    """Make a queue whose tasks go to /x and /y in turn."""
    waiting = tuple((TaskId(n), "host:80", "/x" if n % 2 == 0 else "/y") for n in range(count))
    return UserQueue(uid=Uid(1), waiting=waiting, served=0, running_limit=9)


def test_a_task_goes_to_the_worker_of_its_folder_alone() -> None:
    idle = tuple(WorkerView(key=folder, uid=Uid(1), load=0, room=1, folder=folder) for folder in ("/x", "/y"))
    actions = plan(Snapshot(slots=2, workers=idle, leaving=0, users=(two_folders(2),)))
    assert actions == [
        AssignTask(worker_key="/x", task_id=TaskId(0), begins_turn=True),
        AssignTask(worker_key="/y", task_id=TaskId(1), begins_turn=True),
    ]


def test_an_idle_worker_of_another_folder_makes_way_best_one_that_has_nothing_to_come() -> None:
    idle = tuple(WorkerView(key=folder, uid=Uid(1), load=0, room=1, folder=folder) for folder in ("/y", "/old"))
    user = UserQueue(uid=Uid(1), waiting=two_folders(2).waiting, served=0, running_limit=1)
    assert plan(Snapshot(slots=2, workers=idle, leaving=0, users=(user,))) == [RetireWorker(worker_key="/old")]
    assert plan(Snapshot(slots=4, workers=(*idle, *strangers(2)), leaving=0, users=(user,))) == [
        RetireWorker(worker_key="/old"),
        SpawnWorker(uid=Uid(1), task_id=TaskId(0)),
    ]


def test_each_worker_is_handed_the_small_files_of_its_own_folder_ahead() -> None:
    workers = (busy("a", "/x"), busy("b", "/y"))
    actions = plan(Snapshot(slots=2, workers=workers, leaving=0, users=(two_folders(8),)))
    ahead = {key: [a.task_id for a in actions if isinstance(a, AssignTask) and a.worker_key == key] for key in "ab"}
    assert ahead == {"a": [0, 2, 4, 6], "b": [1, 3, 5, 7]}


def test_a_folder_without_a_worker_does_not_wait_for_all_small_files_of_another() -> None:
    workers = (busy("a", "/x"), busy("b", "/x", 10), busy("c", "/x"))
    actions = plan(Snapshot(slots=3, workers=workers, leaving=0, users=(two_folders(40),)))
    assert {action.worker_key for action in actions if isinstance(action, AssignTask)} == {"a", "c"}


def test_one_that_is_long_at_work_is_not_what_a_folder_without_a_worker_waits_for() -> None:
    long = WorkerView(key="long", uid=Uid(1), load=1, room=1, hosts=frozenset({"host:80"}), folder="/z")
    workers = (long, busy("a", "/x"), busy("b", "/x", 10))
    actions = plan(Snapshot(slots=3, workers=workers, leaving=0, users=(two_folders(40),)))
    assert {action.worker_key for action in actions if isinstance(action, AssignTask)} == {"a"}


def test_a_worker_that_was_just_started_is_worth_its_start_before_it_makes_way() -> None:
    worker = busy("a", "/x", is_fresh=True)
    actions = plan(Snapshot(slots=1, workers=(worker,), leaving=0, users=(two_folders(8),)))
    assert [action.task_id for action in actions if isinstance(action, AssignTask)] == [0, 2, 4, 6]
    assert plan(Snapshot(slots=1, workers=(busy("a", "/x"),), leaving=0, users=(two_folders(8),))) == []


def at_full_host(
    slots: int, *workers: WorkerView, limit: int, room: int = 0, user: UserQueue | None = None
) -> list[Action]:
    """Plan where host:80 has `room` connections of `limit`, as a rule for a user whose next task is in /y."""
    queued = user or UserQueue(
        uid=Uid(1),
        waiting=(*tasks(1, 1, folder="/y"), *tasks(1, 40, first=1, folder="/x")),
        served=0,
        running_limit=99,
    )
    return plan(
        Snapshot(
            slots=slots,
            workers=workers,
            leaving=0,
            users=(queued,),
            host_limit=limit,
            host_room={"host:80": room},
        )
    )


def fed(actions: list[Action]) -> set[str]:
    """Return the workers that get more."""
    return {action.worker_key for action in actions if isinstance(action, AssignTask)}


def test_a_worker_makes_way_for_another_folder_where_its_user_s_workers_have_all_connections_of_the_host() -> None:
    assert fed(at_full_host(2, busy("a", "/x"), busy("b", "/x", 10), limit=16)) == {"a"}
    assert fed(at_full_host(1, busy("a", "/x"), limit=8)) == set()
    assert fed(at_full_host(2, busy("a", "/x"), busy("b", "/x", 10, is_fresh=True), limit=16)) == {"b"}


def test_a_worker_makes_way_for_another_folder_where_slots_are_free_and_the_host_has_no_more_connections() -> None:
    assert fed(at_full_host(10, busy("a", "/x"), limit=1)) == set()
    assert fed(at_full_host(10, busy("a", "/x", is_fresh=True), limit=1)) == {"a"}
    assert fed(at_full_host(10, busy("a", "/x"), busy("b", "/x", 10), limit=2)) == {"a"}


def test_what_was_made_way_for_gets_the_freed_place() -> None:
    idle = busy("b", "/x", 0)
    first_of_y = SpawnWorker(uid=Uid(1), task_id=TaskId(1000))
    assert RetireWorker(worker_key="b") in at_full_host(2, busy("a", "/x"), idle, limit=16, room=8)
    assert first_of_y in at_full_host(2, busy("a", "/x"), limit=16, room=8)
    [started] = [action for action in at_full_host(10, idle, limit=1, room=1) if not isinstance(action, MakeRoom)]
    assert started == first_of_y


def test_nobody_makes_way_where_others_are_asked_for_connections() -> None:
    actions = at_full_host(10, busy("a", "/x"), limit=16)
    assert fed(actions) == {"a"}
    assert MakeRoom(host="host:80", tasks=9) in actions


def test_nobody_makes_way_for_a_full_host_where_that_frees_no_connection() -> None:
    there = WorkerView(key="s", uid=Uid(9), load=1, room=1, hosts=frozenset({"host:80"}))
    elsewhere = WorkerView(key="a", uid=Uid(1), load=5, room=100, hosts=frozenset({"other:80"}), folder="/x")
    user = UserQueue(
        uid=Uid(1),
        waiting=(*tasks(1, 1, folder="/y"), *tasks(1, 40, "other:80", first=1, folder="/x")),
        served=0,
        running_limit=99,
    )
    assert fed(at_full_host(2, there, elsewhere, limit=1, user=user)) == {"a"}
    assert fed(at_full_host(2, busy("b", "/x"), elsewhere, limit=1, user=user)) == {"a"}, "b makes way, who is there"
    assert fed(at_full_host(2, there, elsewhere, limit=2, user=user)) == set(), "the other one has several"


def test_an_idle_worker_that_was_just_started_goes_on_in_its_folder_before_it_makes_way() -> None:
    def with_idle(*, is_fresh: bool) -> Snapshot:
        worker = WorkerView(key="a", uid=Uid(1), load=0, room=1, folder="/y", is_fresh=is_fresh)
        return Snapshot(slots=4, workers=(worker, *strangers(3)), leaving=0, users=(two_folders(8),))

    assert plan(with_idle(is_fresh=True)) == [AssignTask(worker_key="a", task_id=TaskId(1), begins_turn=True)]
    assert plan(with_idle(is_fresh=False)) == [
        RetireWorker(worker_key="a"),
        SpawnWorker(uid=Uid(1), task_id=TaskId(0)),
    ]


def test_another_user_waits_for_no_worker_s_worth() -> None:
    worker = WorkerView(key="a", uid=Uid(1), load=0, room=1, folder="/y", is_fresh=True)
    other = UserQueue(uid=Uid(2), waiting=tasks(2, 1), served=0, running_limit=9)
    user = UserQueue(uid=Uid(1), waiting=two_folders(8).waiting, served=1, running_limit=9)
    assert plan(Snapshot(slots=4, workers=(worker, *strangers(3)), leaving=0, users=(user, other))) == [
        RetireWorker(worker_key="a"),
        SpawnWorker(uid=Uid(2), task_id=TaskId(2000)),
    ]


def test_workers_that_wait_in_old_folders_do_not_become_as_many_as_slots() -> None:
    def with_idle(count: int) -> list[Action]:
        idle = tuple(WorkerView(key=f"w{n}", uid=Uid(1), load=0, room=1, folder=f"/{n}") for n in range(count))
        user = UserQueue(uid=Uid(1), waiting=two_folders(2).waiting, served=0, running_limit=99)
        return plan(Snapshot(slots=99, workers=idle, leaving=0, users=(user,)))

    retired = {count: [a for a in with_idle(count) if isinstance(a, RetireWorker)] for count in (8, 9, 40)}
    assert {count: len(actions) for count, actions in retired.items()} == {8: 0, 9: 1, 40: 2}
    assert retired[40][0] == RetireWorker(worker_key="w0"), "the oldest first"


def test_small_files_of_one_folder_have_workers_enough_while_another_folder_gets_its_first() -> None:
    quick = WorkerView(key="q", uid=Uid(1), load=5, room=5, folder="/x", hosts=frozenset({"host:80"}), is_quick=True)
    actions = plan(Snapshot(slots=5, workers=(quick,), leaving=0, users=(two_folders(6),), quick_limit=1))
    assert [action.task_id for action in actions if isinstance(action, SpawnWorker)] == [1, 3, 5]


def test_a_user_without_a_free_connection_starts_nothing_and_those_with_several_are_to_share() -> None:
    worker = WorkerView(key="w", uid=Uid(1), load=1, room=1)
    user = UserQueue(uid=Uid(1), waiting=tasks(1, 5), served=0, running_limit=9, connections=0, key="user 1")
    actions = plan(Snapshot(slots=4, workers=(worker,), leaving=0, users=(user,)))
    assert actions == [MakeRoom(host="user 1", tasks=3)]
