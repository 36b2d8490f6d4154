"""Part files that settled tasks left behind: who removes them.

Runs as: the supervisor.  Talks to: the pool; a worker of the task's owner removes the file.
"""

from __future__ import annotations

from autodl_lib.contract.task import Uid
from autodl_lib.store.reader import Reader
from autodl_lib.store.rows import Leftover
from autodl_lib.supervisor.workers.pool import Pool

_BATCH = 100
_MOST_BATCHES = 20


def remove_leftovers(read: Reader, pool: Pool, max_tasks_num: int) -> bool:
    """Have part files of settled tasks removed by a worker of their folder, or one more where a place is free.

    Returns whether there are any, so that it is worth to look again when something has changed.
    """
    leftovers, are_any = _next_ones(read, pool)
    by_place: dict[tuple[Uid, str], list[Leftover]] = {}
    for left in leftovers:
        by_place.setdefault((left.uid, pool.folder_of(left.dir)), []).append(left)
    views, _ = pool.views()
    places = max_tasks_num - len(views)
    idle = [view.key for view in views if not view.load]
    for place, group in by_place.items():
        mine = [view.key for view in views if (view.uid, view.folder) == place and pool.roster.is_useful(view.key)]
        if mine:
            pool.discard(group, mine[0])
        elif places > 0:
            places -= 1
            pool.discard(group[:1], None)
        elif idle:
            pool.retire(idle.pop())
    return are_any


def _next_ones(read: Reader, pool: Pool) -> tuple[list[Leftover], bool]:
    """Return the first of those that nobody is at and whose folder does not hang, and whether there are any at all."""
    leased = pool.leases.tasks()
    after = (-1, -1)
    for number in range(_MOST_BATCHES):
        batch = read.leftovers(_BATCH, after)
        if not batch:
            return [], number > 0
        hanging = {uid: pool.hanging.folders_of(uid) for uid in {left.uid for left in batch}}
        found = [left for left in batch if left.id not in leased and left.dir not in hanging[left.uid]]
        if found:
            return found, True
        after = (batch[-1].uid, batch[-1].id)
    return [], True
