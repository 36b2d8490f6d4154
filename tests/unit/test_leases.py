"""Who has which task: counted by user, however tasks come and go."""

from __future__ import annotations

import random
from typing import Any

from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.supervisor.workers.leases import Leases
from autodl_lib.supervisor.workers.worker_handle import Lease

WORKER: Any = object()


def lease_of(task_id: int, uid: int) -> Lease:
    return Lease(
        id=f"{random.random()}", task_id=TaskId(task_id), uid=Uid(uid), streak=0, bytes_before=0, identity=None
    )


def test_what_users_have_is_counted_however_tasks_come_and_go() -> None:
    draw = random.Random(1)
    leases = Leases()
    known: list[Lease] = []
    for _ in range(2000):
        task_id = draw.randint(0, 40)
        lease = draw.choice(known) if known and draw.random() < 0.5 else lease_of(task_id, task_id % 3)
        if draw.random() < 0.5:
            leases.put(lease, draw.choice([WORKER, None]))
            known.append(lease)
        else:
            leases.drop(lease)
        for uid in (0, 1, 2):
            assert leases.count_of(Uid(uid)) == len(leases.of_user(Uid(uid)))
    for lease in known:
        leases.drop(lease)
    assert not leases
    assert not leases._of_user, "nothing is left of who has nothing"


def test_a_lease_that_has_ended_is_not_mistaken_for_that_of_the_same_task_now() -> None:
    leases = Leases()
    first, second = lease_of(1, 1000), lease_of(1, 1000)
    leases.put(first, None)
    leases.put(first, WORKER)
    assert (leases.worker_of(first), leases.count_of(Uid(1000))) == (WORKER, 1)
    assert leases.drop(first) is WORKER
    leases.put(second, WORKER)
    assert leases.drop(first) is None
    assert leases.count_of(Uid(1000)) == 1
