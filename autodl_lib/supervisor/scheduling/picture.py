"""What a plan is made from, and what it says: the pool and the queue as the scheduler sees them.

Runs as: the supervisor.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from autodl_lib.contract.task import TaskId, Uid

WaitingTask = tuple[TaskId, str, str]
"""A task, the host of its URL, and its folder: the same for all of a user where workers may write to any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A live worker: `load` is how many assignments it has, `room` how many it may have at once, and where it is.

    `folder`: whose tasks it can serve. `is_quick`: its assignments take milliseconds each. `is_fresh`: it has only
    just been started, and what that took is to be worth it. `turn_room`: as `room`, but while others wait: what is left
    of its turn has time for so many; 0 when its turn is over.
    """

    key: str
    uid: Uid
    load: int
    room: int
    turn_room: int = 0
    hosts: Set[str] = frozenset()
    folder: str = ""
    is_quick: bool = False
    is_fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UserQueue:
    """A user with tasks waiting, best first; `served` orders the turns, then `last`: lower goes first.

    `connections` is how many more the user may have, None without a limit; `key` is its name among the hosts.
    `has_more`: there are more than those shown. A new worker of theirs is taken to be as their last one: `is_quick`,
    with `room` for so many.
    """

    uid: Uid
    waiting: tuple[WaitingTask, ...]
    served: float
    running_limit: int
    last: int = 0
    weight: int = 1
    connections: int | None = None
    key: str = ""
    has_more: bool = False
    room: int = 1
    is_quick: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What `plan` decides from; `leaving` counts workers that are on their way out but still there.

    `freed` of those have nothing left to do, so that others may have their places (see board).
    `host_room` is how many connections are free on each host in use; on any other there are `host_limit`.
    `quick_limit` is how many quick workers are worth having, see crew.
    """

    slots: int
    workers: tuple[WorkerView, ...]
    leaving: int
    users: tuple[UserQueue, ...]
    host_limit: int = 1_000_000
    host_room: Mapping[str, int] = field(default_factory=dict)
    quick_limit: int = 1_000_000
    freed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignTask:
    """Give a task to a worker of its owner that serves its folder; with `begins_turn`, its slot's next turn begins."""

    worker_key: str
    task_id: TaskId
    begins_turn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnWorker:
    """Start a worker for a user and give it this task; a turn of a slot begins."""

    uid: Uid
    task_id: TaskId


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireWorker:
    """Let an idle worker go: its place is needed, or there are more than slots."""

    worker_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeRoom:
    """So many tasks could start, had their host (or user, by their key) connections free: who has several shares."""

    host: str
    tasks: int


Action = AssignTask | SpawnWorker | RetireWorker | MakeRoom
