"""Who runs next: a pure function from a picture of the pool and the queue to what should be done.

Runs as: the supervisor.  Talks to: nobody; no I/O.
Order: who has the fewest slots for their weight goes first, among equals whose turn it is (strides.py), then
priority, then age. So who has nothing running gets the next slot that becomes free, and slots come to be shared
by weight, however long anybody's tasks take. A worker belongs to one user and serves one folder, so another user's
turn, or another folder's, may first need an idle worker to retire. A task whose host has no connection free is
passed over, but for a worker that is on that host already: there it costs none. A task whose folder has no worker
does not wait for all small files of another one: once that one's worker was worth its start, it gets no more.
Invariants: never more busy workers than slots, never more workers than slots; held users get nothing;
no host gets more workers than it has room for, and no user more than their limit of connections.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from autodl_lib.contract.task import Uid
from autodl_lib.supervisor.scheduling.crew import resting
from autodl_lib.supervisor.scheduling.line import Head, Line
from autodl_lib.supervisor.scheduling.picture import (
    Action,
    AssignTask,
    MakeRoom,
    RetireWorker,
    Snapshot,
    SpawnWorker,
    WorkerView,
)

MOST_IDLE = 8
"""So many workers of a user stay, for a while, in folders that nothing waits for; with more folders, some go."""

_Place = tuple[Uid, str]
"""A user and a folder: what workers are for."""


@dataclass(slots=True)
class _Board:
    """The pieces while a plan is made; `promised` places become free by themselves, when workers have left."""

    snapshot: Snapshot
    free: int
    places: int
    promised: int
    room: dict[str, int]
    idle: dict[_Place, list[WorkerView]] = field(default_factory=dict)
    busy_places: set[_Place] = field(default_factory=set)
    busy_count: Counter[Uid] = field(default_factory=Counter)
    reserved: Counter[Uid] = field(default_factory=Counter)
    started: Counter[Uid] = field(default_factory=Counter)
    busy_at: set[tuple[Uid, str]] = field(default_factory=set)
    short: Counter[str] = field(default_factory=Counter)
    quick: Counter[_Place] = field(default_factory=Counter)
    actions: list[Action] = field(default_factory=list)

    def is_quick_enough(self, uid: Uid, folder: str) -> bool:
        """Return whether the small files there have workers enough: one more would take time from them."""
        return self.quick[uid, folder] > 0 and sum(self.quick.values()) >= self.snapshot.quick_limit

    def has_room(self, host: str) -> bool:
        return self.room.get(host, self.snapshot.host_limit) > 0

    def occupy(self, uid: Uid, host: str) -> None:
        self.room[host] = self.room.get(host, self.snapshot.host_limit) - 1
        self.busy_at.add((uid, host))

    def begin(self, uid: Uid, head: Head) -> None:
        """Take note of a start."""
        self.busy_count[uid] += 1
        self.started[uid] += 1
        self.busy_places.add((uid, head.folder))
        self.occupy(uid, head.host)


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
        place = worker.uid, worker.folder
        if worker.load:
            board.busy_count[worker.uid] += 1
            board.quick[place] += worker.is_quick
            board.busy_places.add(place)
            board.busy_at.update((worker.uid, host) for host in worker.hosts)
        else:
            board.idle.setdefault(place, []).append(worker)
    lines = {user.uid: Line(user) for user in snapshot.users}
    _fill_slots(board, lines)
    if not any(_is_unserved(board, line) for line in lines.values()):
        _hand_ahead(board, lines)
    board.actions += [MakeRoom(host=host, tasks=count) for host, count in board.short.items() if count > 0]
    _shrink(board)
    _clear_out(board, lines)
    return board.actions


def _fill_slots(board: _Board, lines: dict[Uid, Line]) -> None:
    """Give free slots to users by turn."""
    turns = [(_turn(board, line), uid) for uid, line in lines.items()]
    heapq.heapify(turns)
    while turns and board.free > 0:
        _, uid = heapq.heappop(turns)
        line = lines[uid]
        if board.busy_count[uid] + board.reserved[uid] >= line.user.running_limit:
            continue
        if line.lacks_connections(board.started[uid]):
            board.short[line.user.key] += _startable(board, line)
            continue
        head = line.first(board.has_room, partial(board.is_quick_enough, uid))
        if head is None:
            _ask_for_room(board, line)
            continue
        if not _start(board, line, head):
            if line.open_count() > board.reserved[uid] and _see_to_place(board, lines, uid):
                board.reserved[uid] += 1  # so that nobody else takes this slot meanwhile
            elif not _start_elsewhere(board, line):
                continue
        board.free -= 1
        heapq.heappush(turns, (_turn(board, line), uid))


def _turn(board: _Board, line: Line) -> tuple[float, float, int]:
    """Return what orders the turns; a start in this plan moves the user's pass on as the runner will."""
    user = line.user
    reserved = board.reserved[user.uid]
    passed = user.served + (board.started[user.uid] + reserved) / user.weight
    return (board.busy_count[user.uid] + reserved) / user.weight, passed, user.last


def _startable(board: _Board, line: Line) -> int:
    """Return how many tasks of a user could start now, but for the limit of their connections."""
    left = min(board.free, line.user.running_limit - board.busy_count[line.user.uid])
    return max(0, min(left, sum(1 for head in line.open_tasks() if board.has_room(head.host))))


def _ask_for_room(board: _Board, line: Line) -> None:
    """A user has free slots and nothing but tasks of full hosts: count what could start there."""
    left = min(board.free, line.user.running_limit - board.busy_count[line.user.uid])
    for host, count in line.blocked_hosts().items():
        wanted = min(left, count, board.free - board.short[host])
        if wanted > 0:
            board.short[host] += wanted
            left -= wanted


def _is_unserved(board: _Board, line: Line) -> bool:
    """Return whether a user who has nothing running at all could have, once a slot is free."""
    return not board.busy_count[line.user.uid] and _could_start(board, line)


def _could_start(board: _Board, line: Line) -> bool:
    """Return whether a slot that becomes free is of use to a user."""
    uid = line.user.uid
    if board.busy_count[uid] >= line.user.running_limit or line.lacks_connections(board.started[uid]):
        return False
    return any(board.has_room(head.host) for head in line.open_tasks())


def _start(board: _Board, line: Line, head: Head) -> bool:
    """Start a task on an idle worker of its folder or a new one; False where a place must become free first."""
    uid = line.user.uid
    idle = board.idle.get((uid, head.folder))
    if idle:
        board.actions.append(AssignTask(worker_key=idle.pop().key, task_id=head.task_id))
    elif board.places > 0:
        board.places -= 1
        board.actions.append(SpawnWorker(uid=uid, task_id=head.task_id))
    else:
        return False
    line.start(head)
    board.begin(uid, head)
    return True


def _see_to_place(board: _Board, lines: dict[Uid, Line], uid: Uid) -> bool:
    """See that a place becomes free for another worker, best that of one without work to come; False where none can."""
    if board.promised > 0:
        board.promised -= 1  # a worker is on its way out: its place is the one to wait for
        return True
    for is_wanted in (False, True):
        for (owner, folder), workers in board.idle.items():
            if not workers or (owner in lines and folder in lines[owner].lanes) is not is_wanted:
                continue
            if is_wanted and owner == uid and workers[-1].is_fresh:
                continue  # else two folders in turn would cost a process for each file
            board.actions.append(RetireWorker(worker_key=workers.pop().key))
            return True
    return False


def _start_elsewhere(board: _Board, line: Line) -> bool:
    """Start a later task of a user, whose folder has a worker that is to be worth its start first."""
    for (owner, folder), workers in board.idle.items():
        if owner == line.user.uid and workers and folder in line.lanes:
            head = line.lanes[folder].first(board.has_room)
            if head is not None:
                return _start(board, line, head)
    return False


def _hand_ahead(board: _Board, lines: dict[Uid, Line]) -> None:
    """Fill the room of busy workers, evenly, so that small files need no round trip each."""
    awaited = _awaited_hosts(board, lines)
    fed = _fed(board, lines)
    at_rest = resting([worker for worker in board.snapshot.workers if worker.load], board.snapshot.quick_limit)
    at_rest |= _making_way(board, lines)
    workers = [
        worker
        for worker in board.snapshot.workers
        if worker.load and worker.room > worker.load and worker.uid in fed and worker.key not in at_rest
    ]
    rooms = {worker.key: worker.room - worker.load for worker in workers}
    hosts = {worker.key: set(worker.hosts) for worker in workers}

    def is_free(host: str) -> bool:
        return host not in awaited and board.has_room(host)

    while workers:
        left = []
        for worker in workers:
            line = lines.get(worker.uid)
            lane = line.lanes.get(worker.folder) if line is not None else None
            if lane is None or rooms[worker.key] <= 0:
                continue
            head = lane.take(hosts[worker.key] - awaited, is_free)
            if head is None:
                continue
            if head.host not in hosts[worker.key]:
                hosts[worker.key].add(head.host)
                board.occupy(worker.uid, head.host)
            rooms[worker.key] -= 1
            board.actions.append(AssignTask(worker_key=worker.key, task_id=head.task_id))
            left.append(worker)
        workers = left


def _making_way(board: _Board, lines: dict[Uid, Line]) -> set[str]:
    """Return the workers that get no more ahead, since a task of their user waits for one in another folder.

    One of a user at a time: that with the least to do, of those that would get more (others become free by themselves),
    when it has been there for long enough to be worth its start.
    """
    chosen: dict[Uid, WorkerView] = {}
    for worker in board.snapshot.workers:
        if worker.uid not in lines or not worker.load or worker.room <= 1 or worker.is_fresh:
            continue
        if worker.uid not in chosen or worker.load < chosen[worker.uid].load:
            chosen[worker.uid] = worker
    return {
        worker.key for uid, worker in chosen.items() if not board.reserved[uid] and _has_homeless(board, lines[uid])
    }


def _has_homeless(board: _Board, line: Line) -> bool:
    """Return whether a task could run but for a worker in its folder."""
    uid = line.user.uid
    return any(
        (uid, folder) not in board.busy_places and any(board.has_room(head.host) for head in lane.open)
        for folder, lane in line.lanes.items()
    )


def _fed(board: _Board, lines: dict[Uid, Line]) -> set[Uid]:
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


def _awaited_hosts(board: _Board, lines: dict[Uid, Line]) -> set[str]:
    """Return the full hosts that a user waits for who has nothing running there: others take no more of them ahead.

    Else one user's worker could stay on a host for as long as that user has small files of it.
    """
    awaited: set[str] = set()
    for line in lines.values():
        uid = line.user.uid
        if board.free > 0:
            wanted = set(line.blocked_hosts())
        elif not board.busy_count[uid] and line.user.running_limit > 0:
            wanted = {head.host for head in line.open_tasks()}.union(line.blocked_hosts())
        else:
            continue
        awaited.update(host for host in wanted if (uid, host) not in board.busy_at and not board.has_room(host))
    return awaited


def _shrink(board: _Board) -> None:
    """Retire idle workers where there are more workers than slots."""
    excess = len(board.snapshot.workers) - board.snapshot.slots
    retired = sum(1 for action in board.actions if isinstance(action, RetireWorker))
    for workers in board.idle.values():
        while workers and retired < excess:
            board.actions.append(RetireWorker(worker_key=workers.pop().key))
            retired += 1


def _clear_out(board: _Board, lines: dict[Uid, Line]) -> None:
    """Where a user's workers are started in new folders, retire some in old ones, or they could become very many."""
    started = Counter(action.uid for action in board.actions if isinstance(action, SpawnWorker))
    unwanted: dict[Uid, list[WorkerView]] = {}
    for (uid, folder), workers in board.idle.items():
        if started[uid] and folder not in lines[uid].lanes:
            unwanted.setdefault(uid, []).extend(workers)
    for uid, workers in unwanted.items():
        count = min(started[uid], len(workers) - MOST_IDLE)
        board.actions += [RetireWorker(worker_key=worker.key) for worker in workers[: max(0, count)]]
