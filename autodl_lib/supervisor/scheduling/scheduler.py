"""Who runs next: a pure function from a picture of the pool and the queue to what should be done.

Runs as: the supervisor.  Talks to: nobody; no I/O.
Order: who has the fewest slots for their weight goes first, among equals whose turn it is (strides.py), then
priority, then age. So who has nothing running gets the next slot that becomes free, and slots come to be shared
by weight, however long anybody's tasks take. A worker belongs to one user, so another user's turn may first need
an idle worker to retire. A task whose host has no connection free is passed over, but for a worker that is on
that host already: there it costs none.
Invariants: never more busy workers than slots, never more workers than slots; held users get nothing;
no host gets more workers than it has room for, and no user more than their limit of connections.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.supervisor.scheduling.crew import resting

WaitingTask = tuple[TaskId, str]
"""A task and the host of its URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A live worker: `load` is how many assignments it has, `room` how many it may have at once, and where it is.

    `is_quick`: its assignments take milliseconds each.
    """

    key: str
    uid: Uid
    load: int
    room: int
    hosts: Set[str] = frozenset()
    is_quick: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UserQueue:
    """A user with tasks waiting, best first; `served` orders the turns, then `last`: lower goes first.

    `connections` is how many more the user may have, None without a limit; `key` is its name among the hosts.
    """

    uid: Uid
    waiting: tuple[WaitingTask, ...]
    served: float
    running_limit: int
    last: int = 0
    weight: int = 1
    connections: int | None = None
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What `plan` decides from; `leaving` counts workers that are on their way out but still there.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeRoom:
    """So many tasks could start, had their host (or user, by their key) connections free: who has several shares."""

    host: str
    tasks: int


Action = AssignTask | SpawnWorker | RetireWorker | MakeRoom


@dataclass(slots=True)
class _Line:
    """A user's queue while a plan is made; `blocked` are those at the front whose host is full, by host.

    The number before a task is its place in the queue.
    """

    user: UserQueue
    open: deque[tuple[int, TaskId, str]]
    blocked: dict[str, deque[tuple[int, TaskId]]] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not self.open and not self.blocked

    def lacks_connections(self, started: int) -> bool:
        return self.user.connections is not None and started >= self.user.connections


@dataclass(slots=True)
class _Board:
    """The pieces while a plan is made; `promised` places become free by themselves, when workers have left."""

    snapshot: Snapshot
    free: int
    places: int
    promised: int
    room: dict[str, int]
    idle: dict[Uid, list[str]] = field(default_factory=dict)
    busy_count: Counter[Uid] = field(default_factory=Counter)
    reserved: Counter[Uid] = field(default_factory=Counter)
    started: Counter[Uid] = field(default_factory=Counter)
    busy_at: set[tuple[Uid, str]] = field(default_factory=set)
    short: Counter[str] = field(default_factory=Counter)
    quick: Counter[Uid] = field(default_factory=Counter)
    actions: list[Action] = field(default_factory=list)

    def is_quick_enough(self, uid: Uid) -> bool:
        """Return whether a user's small files have workers enough: one more would take time from them."""
        return self.quick[uid] > 0 and sum(self.quick.values()) >= self.snapshot.quick_limit

    def has_room(self, host: str) -> bool:
        return self.room.get(host, self.snapshot.host_limit) > 0

    def occupy(self, uid: Uid, host: str) -> None:
        self.room[host] = self.room.get(host, self.snapshot.host_limit) - 1
        self.busy_at.add((uid, host))


def plan(snapshot: Snapshot) -> list[Action]:
    """Return what to do now, in order; an empty list when nothing can or need be done."""
    places = snapshot.slots - len(snapshot.workers) - snapshot.leaving
    board = _Board(
        snapshot=snapshot,
        free=snapshot.slots - sum(1 for worker in snapshot.workers if worker.load),
        places=places,
        promised=max(0, snapshot.slots - len(snapshot.workers)) - max(0, places),
        room=dict(snapshot.host_room),
    )
    for worker in snapshot.workers:
        if worker.load:
            board.busy_count[worker.uid] += 1
            board.quick[worker.uid] += worker.is_quick
            board.busy_at.update((worker.uid, host) for host in worker.hosts)
        else:
            board.idle.setdefault(worker.uid, []).append(worker.key)
    lines = {
        user.uid: _Line(user, deque((place, *task) for place, task in enumerate(user.waiting)))
        for user in snapshot.users
    }
    _fill_slots(board, lines)
    if not any(_is_unserved(board, line) for line in lines.values()):
        _hand_ahead(board, lines)
    board.actions += [MakeRoom(host=host, tasks=count) for host, count in board.short.items() if count > 0]
    _shrink(board)
    return board.actions


def _fill_slots(board: _Board, lines: dict[Uid, _Line]) -> None:
    """Give free slots to users by turn."""
    turns = [(_turn(board, line), uid) for uid, line in lines.items()]
    heapq.heapify(turns)
    while turns and board.free > 0:
        _, uid = heapq.heappop(turns)
        line = lines[uid]
        if board.busy_count[uid] + board.reserved[uid] >= line.user.running_limit or board.is_quick_enough(uid):
            continue
        if line.lacks_connections(board.started[uid]):
            board.short[line.user.key] += _startable(board, line)
            continue
        head = _first_with_room(board, line)
        if head is None:
            _ask_for_room(board, line)
            continue
        _, task_id, host = head
        if _start(uid, task_id, board):
            line.open.popleft()
            board.busy_count[uid] += 1
            board.started[uid] += 1
            board.occupy(uid, host)
        elif len(line.open) > board.reserved[uid] and _see_to_place(board):
            board.reserved[uid] += 1  # so that nobody else takes this slot meanwhile
        else:
            continue
        board.free -= 1
        heapq.heappush(turns, (_turn(board, line), uid))


def _turn(board: _Board, line: _Line) -> tuple[float, float, int]:
    """Return what orders the turns; a start in this plan moves the user's pass on as the runner will."""
    user = line.user
    reserved = board.reserved[user.uid]
    passed = user.served + (board.started[user.uid] + reserved) / user.weight
    return (board.busy_count[user.uid] + reserved) / user.weight, passed, user.last


def _startable(board: _Board, line: _Line) -> int:
    """Return how many tasks of a user could start now, but for the limit of their connections."""
    left = min(board.free, line.user.running_limit - board.busy_count[line.user.uid])
    return max(0, min(left, sum(1 for _, _, host in line.open if board.has_room(host))))


def _first_with_room(board: _Board, line: _Line) -> tuple[int, TaskId, str] | None:
    """Return a user's best task whose host has room; those before it are set aside as blocked."""
    while line.open:
        place, task_id, host = head = line.open[0]
        if board.has_room(host):
            return head
        line.blocked.setdefault(host, deque()).append((place, task_id))
        line.open.popleft()
    return None


def _ask_for_room(board: _Board, line: _Line) -> None:
    """A user has free slots and nothing but tasks of full hosts: count what could start there."""
    left = min(board.free, line.user.running_limit - board.busy_count[line.user.uid])
    for host, tasks in line.blocked.items():
        wanted = min(left, len(tasks), board.free - board.short[host])
        if wanted > 0:
            board.short[host] += wanted
            left -= wanted


def _is_unserved(board: _Board, line: _Line) -> bool:
    """Return whether a user who has nothing running at all could have, once a slot is free."""
    return not board.busy_count[line.user.uid] and _could_start(board, line)


def _could_start(board: _Board, line: _Line) -> bool:
    """Return whether a slot that becomes free is of use to a user."""
    uid = line.user.uid
    if board.busy_count[uid] >= line.user.running_limit or line.lacks_connections(board.started[uid]):
        return False
    return any(board.has_room(host) for _, _, host in line.open)


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
    return False


def _see_to_place(board: _Board) -> bool:
    """See that a place becomes free for another user's worker; False where none can."""
    if board.promised > 0:
        board.promised -= 1  # a worker is on its way out: its place is the one to wait for
        return True
    for others in board.idle.values():
        if others:
            board.actions.append(RetireWorker(worker_key=others.pop()))
            return True
    return False


def _hand_ahead(board: _Board, lines: dict[Uid, _Line]) -> None:
    """Fill the room of busy workers, evenly, so that small files need no round trip each."""
    awaited = _awaited_hosts(board, lines)
    fed = _fed(board, lines)
    at_rest = resting([worker for worker in board.snapshot.workers if worker.load], board.snapshot.quick_limit)
    workers = [
        worker
        for worker in board.snapshot.workers
        if worker.load and worker.room > worker.load and worker.uid in fed and worker.key not in at_rest
    ]
    rooms = {worker.key: worker.room - worker.load for worker in workers}
    hosts = {worker.key: set(worker.hosts) for worker in workers}
    while workers:
        left = []
        for worker in workers:
            line = lines.get(worker.uid)
            if line is None or line.is_empty or rooms[worker.key] <= 0:
                continue
            task = _take_for(board, line, hosts[worker.key], awaited)
            if task is None:
                continue
            _, task_id, host = task
            if host not in hosts[worker.key]:
                hosts[worker.key].add(host)
                board.occupy(worker.uid, host)
            rooms[worker.key] -= 1
            board.actions.append(AssignTask(worker_key=worker.key, task_id=task_id))
            left.append(worker)
        workers = left


def _fed(board: _Board, lines: dict[Uid, _Line]) -> set[Uid]:
    """Return the users whose workers get more ahead: the others' are to become idle, and their slots free.

    Else who has many small files would keep each slot that they once had.
    """
    if sum(board.busy_count.values()) > board.snapshot.slots:
        return set()
    wanted = math.inf
    for uid, line in lines.items():
        if _could_start(board, line):
            wanted = min(wanted, (board.busy_count[uid] + 1) / line.user.weight)
    return {
        uid
        for uid, line in lines.items()
        if board.busy_count[uid] <= line.user.running_limit and board.busy_count[uid] / line.user.weight <= wanted
    }


def _awaited_hosts(board: _Board, lines: dict[Uid, _Line]) -> set[str]:
    """Return the full hosts that a user waits for who has nothing running there: others take no more of them ahead.

    Else one user's worker could stay on a host for as long as that user has small files of it.
    """
    awaited: set[str] = set()
    for line in lines.values():
        uid = line.user.uid
        if board.free > 0:
            wanted = set(line.blocked)
        elif not board.busy_count[uid] and line.user.running_limit > 0:
            wanted = {host for _, _, host in line.open}.union(line.blocked)
        else:
            continue
        awaited.update(host for host in wanted if (uid, host) not in board.busy_at and not board.has_room(host))
    return awaited


def _take_for(board: _Board, line: _Line, at: set[str], awaited: set[str]) -> tuple[int, TaskId, str] | None:
    """Take the best task of a user that a busy worker can have ahead; `at` is the hosts where it is already."""
    head = None
    while line.open:
        place, task_id, host = line.open[0]
        if host not in awaited and (host in at or board.has_room(host)):
            head = line.open[0]
            break
        line.blocked.setdefault(host, deque()).append((place, task_id))
        line.open.popleft()
    best = head[0] if head else None
    best_host = None
    for host in line.blocked if len(line.blocked) < len(at) else at:
        if host in at and host in line.blocked and host not in awaited:
            place = line.blocked[host][0][0]
            if best is None or place < best:
                best, best_host = place, host
    if best_host is None:
        return line.open.popleft() if head else None
    tasks = line.blocked[best_host]
    place, task_id = tasks.popleft()
    if not tasks:
        del line.blocked[best_host]
    return place, task_id, best_host


def _shrink(board: _Board) -> None:
    """Retire idle workers where there are more workers than slots."""
    excess = len(board.snapshot.workers) - board.snapshot.slots
    retired = sum(1 for action in board.actions if isinstance(action, RetireWorker))
    for keys in board.idle.values():
        while keys and retired < excess:
            board.actions.append(RetireWorker(worker_key=keys.pop()))
            retired += 1
