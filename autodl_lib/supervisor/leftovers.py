"""Part files that settled tasks left behind: who removes them.

Runs as: the supervisor.  Talks to: the pool; a worker of the task's owner removes the file.
"""

from __future__ import annotations

from autodl_lib.contract.task import Uid
from autodl_lib.store.reader import Reader
from autodl_lib.store.rows import Leftover
from autodl_lib.supervisor.workers.pool import Pool

_BATCH = 100


def remove_leftovers(read: Reader, pool: Pool, max_tasks_num: int) -> bool:
    """Have part files of settled tasks removed by a worker of their folder, or one more where a place is free.

    Returns whether there are any, so that it is worth to look again when something has changed.
    """
    leased = pool.leases.tasks()
    leftovers = [left for left in read.leftovers(_BATCH) if left.id not in leased]
    by_place: dict[tuple[Uid, str], list[Leftover]] = {}
    for left in leftovers:
        if left.dir not in pool.hanging.folders_of(left.uid):
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
    return bool(leftovers)
