"""Which of a user's waiting tasks the scheduler is shown: the best ones, and those behind a closed host.

Runs as: the supervisor.  Talks to: the store's reader, what is remembered of it (queue_heads.py).
Invariants: what is read is bounded by what can be handed out and by the number of hosts, never by how many
tasks wait for a host that is closed.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.supervisor.scheduling.picture import WaitingTask
from autodl_lib.supervisor.scheduling.queue_heads import QueueHeads


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """Hosts that take no further worker: `held` ones no task at all, `full` ones some where a worker is `at` them.

    `folders` take no task either: who writes there hangs.
    """

    held: Set[str]
    full: Set[str]
    at: Set[str]
    folders: Set[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """How many tasks could be handed out, how many of them to a worker's place that is free; and who has some."""

    tasks: int
    slots: int
    leased: Set[TaskId]
    leased_by_user: int


_LOOKED_THROUGH = 2000
"""So many tasks are looked through for some that are not of a closed folder; there are such folders seldom."""

_MOST_ELSEWHERE = 256
"""So many tasks behind closed hosts are enough for one plan; the next one finds more."""


def next_tasks(heads: QueueHeads, uid: Uid, need: Need, closed: Closed) -> tuple[WaitingTask, ...]:
    """Return a user's next tasks, best first."""
    head = heads.first(uid, max(need.tasks, _LOOKED_THROUGH) if closed.folders else need.tasks, need.leased)
    if closed.folders:
        head = [task for task in head if task[2] not in closed.folders][: need.tasks]
    if not closed.held and not closed.full:
        return tuple(head)
    kept = [task for task in head if task[1] not in closed.held]
    startable = sum(1 for _, host, _ in kept if host not in closed.full)
    usable = sum(1 for _, host, _ in kept if host not in closed.full or host in closed.at)
    if usable == len(head) and startable >= min(need.slots, len(head)):
        return tuple(kept)
    seen = {task_id for task_id, _, _ in kept}
    limit = min(need.tasks, _MOST_ELSEWHERE) + need.leased_by_user
    elsewhere = heads.elsewhere(uid, closed.held | closed.full, limit)
    # What is not at the front comes behind it.
    elsewhere = [task for task in elsewhere if task[0] not in need.leased and task[2] not in closed.folders]
    return tuple(kept + [task for task in elsewhere if task[0] not in seen])
