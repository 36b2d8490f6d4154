"""Who runs next: a pure function from a picture of the pool and the queue to what should be done.

Runs as: the supervisor.  Talks to: nobody; no I/O.
Order: users by turn (who was served longest ago goes first), then priority, then age. A worker belongs
to one user, so another user's turn may first need an idle worker to retire.
Invariants: never more busy workers than slots, never more workers than slots; held users get nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from autodl_lib.contract.task import TaskId, Uid


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A live worker: `load` is how many assignments it has, `room` how many it may have at once."""

    key: str
    uid: Uid
    load: int
    room: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UserQueue:
    """A user with tasks waiting, best first; `served` orders the turns, lower goes first."""

    uid: Uid
    waiting: tuple[TaskId, ...]
    served: int
    running_limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What `plan` decides from; `leaving` counts workers that are on their way out but still there."""

    slots: int
    workers: tuple[WorkerView, ...]
    leaving: int
    users: tuple[UserQueue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignTask:
    """Give a task to a live worker of its owner."""

    worker_key: str
    task_id: TaskId


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnWorker:
    """Start a worker for a user and give it this task."""

    uid: Uid
    task_id: TaskId


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireWorker:
    """Let an idle worker go: another user needs its slot, or there are more than slots."""

    worker_key: str


Action = AssignTask | SpawnWorker | RetireWorker


@dataclass(slots=True)
class _Board:
    """The pieces while a plan is made; `promised` places become free by themselves, when workers have left."""

    free: int
    places: int
    promised: int
    idle: dict[Uid, list[str]] = field(default_factory=dict)
    busy_count: dict[Uid, int] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)


def plan(snapshot: Snapshot) -> list[Action]:
    """Return what to do now, in order; an empty list when nothing can or need be done."""
    places = snapshot.slots - len(snapshot.workers) - snapshot.leaving
    board = _Board(
        free=snapshot.slots - sum(1 for worker in snapshot.workers if worker.load),
        places=places,
        promised=max(0, snapshot.slots - len(snapshot.workers)) - max(0, places),
    )
    for worker in snapshot.workers:
        if worker.load:
            board.busy_count[worker.uid] = board.busy_count.get(worker.uid, 0) + 1
        else:
            board.idle.setdefault(worker.uid, []).append(worker.key)
    queues = {user.uid: deque(user.waiting) for user in snapshot.users}
    unserved = _fill_slots(snapshot, board, queues)
    if not unserved:
        _hand_ahead(snapshot, board, queues)
    _shrink(snapshot, board)
    return board.actions


def _fill_slots(snapshot: Snapshot, board: _Board, queues: dict[Uid, deque[TaskId]]) -> bool:
    """Give free slots to users by turn; return whether a user waits who has nothing running at all."""
    turns = deque(sorted(snapshot.users, key=lambda user: user.served))
    while turns and board.free > 0:
        user = turns.popleft()
        waiting = queues[user.uid]
        if not waiting or board.busy_count.get(user.uid, 0) >= user.running_limit:
            continue
        if not _start(user.uid, waiting[0], board):
            continue
        waiting.popleft()
        board.free -= 1
        board.busy_count[user.uid] = board.busy_count.get(user.uid, 0) + 1
        turns.append(user)
    return any(
        queues[user.uid] and user.running_limit > 0 and not board.busy_count.get(user.uid) for user in snapshot.users
    )


def _start(uid: Uid, task_id: TaskId, board: _Board) -> bool:
    """Start one task on an idle worker of its owner or a new one; False where a place must become free first."""
    idle = board.idle.get(uid)
    if idle:
        board.actions.append(AssignTask(worker_key=idle.pop(), task_id=task_id))
        return True
    if board.places > 0:
        board.places -= 1
        board.actions.append(SpawnWorker(uid=uid, task_id=task_id))
        return True
    if board.promised > 0:
        board.promised -= 1  # a worker is on its way out: its place is the one to wait for
        return False
    for others in board.idle.values():
        if others:
            board.actions.append(RetireWorker(worker_key=others.pop()))
            break
    return False


def _hand_ahead(snapshot: Snapshot, board: _Board, queues: dict[Uid, deque[TaskId]]) -> None:
    """Fill the room of busy workers, evenly, so that small files need no round trip each."""
    rooms = {worker.key: worker.room - worker.load for worker in snapshot.workers if worker.load}
    workers = [worker for worker in snapshot.workers if worker.load]
    while workers:
        left = []
        for worker in workers:
            waiting = queues.get(worker.uid)
            if waiting and rooms[worker.key] > 0:
                rooms[worker.key] -= 1
                board.actions.append(AssignTask(worker_key=worker.key, task_id=waiting.popleft()))
                left.append(worker)
        workers = left


def _shrink(snapshot: Snapshot, board: _Board) -> None:
    """Retire idle workers where there are more workers than slots."""
    excess = len(snapshot.workers) - snapshot.slots
    retired = sum(1 for action in board.actions if isinstance(action, RetireWorker))
    for keys in board.idle.values():
        while keys and retired < excess:
            board.actions.append(RetireWorker(worker_key=keys.pop()))
            retired += 1
