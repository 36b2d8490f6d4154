"""Who runs next: a pure function from a picture of the pool and the queue to what should be done.

Runs as: the supervisor.  Talks to: nobody; no I/O.
Order: who has the fewest slots for their weight goes first, among equals whose turn it is (strides.py), then
priority, then age. So who has nothing running gets the next slot that becomes free, and slots come to be shared
by weight, however long anybody's tasks take. A slot that is given to a user is theirs for a turn: for a fraction of a
second (worker_handle.TURN_S), tasks that are short enough follow each other there though others wait, else each of them
would cost a change of workers. A task that takes longer ends the turn with itself.
A worker belongs to one user and serves one folder, so another user's turn, or another folder's, may first need an idle
worker to retire; its place is free at once, within bounds (board.py). A task whose host has no connection free is
passed over, but for a worker that is on that host already: there it costs none. A task whose folder has no worker
does not wait for all small files of another one: once that one's worker was worth its start, it gets no more. Where
small files wait for a folder's workers that have room for all of them, no other worker starts for them.
Invariants: never more busy workers than slots, never more workers than slots but those that are leaving; held users get
nothing; no host gets more workers than it has room for, and no user more than their limit of connections.
"""

from __future__ import annotations

import heapq
from collections import Counter
from functools import partial

from autodl_lib.contract.task import Uid
from autodl_lib.supervisor.scheduling.board import Board, set_up
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
from autodl_lib.supervisor.scheduling.work_ahead import hand_ahead

MOST_IDLE = 8
"""So many workers of a user stay, for a while, in folders that nothing waits for; with more folders, some go."""


def plan(snapshot: Snapshot) -> list[Action]:
    """Return what to do now, in order; an empty list when nothing can or need be done."""
    board = set_up(snapshot)
    lines = {user.uid: Line(user) for user in snapshot.users}
    _go_on(board, lines)
    _fill_slots(board, lines)
    hand_ahead(board, lines)
    board.actions += [MakeRoom(host=host, tasks=count) for host, count in board.short.items() if count > 0]
    _shrink(board)
    _clear_out(board, lines)
    return board.actions


def _go_on(board: Board, lines: dict[Uid, Line]) -> None:
    """Give idle workers whose turn is not over their folder's next task, whoever waits."""
    for (uid, folder), workers in board.idle.items():
        line = lines.get(uid)
        if line is None or folder not in line.lanes:
            continue
        for worker in [worker for worker in workers if worker.turn_room > 0]:
            if board.free <= 0 or not _may_have_more(board, line) or board.is_served(line, folder):
                break
            head = line.lanes[folder].first(board.has_room)
            if head is None:
                break
            workers.remove(worker)
            board.actions.append(AssignTask(worker_key=worker.key, task_id=head.task_id))
            board.begin(line, head, worker)


def _may_have_more(board: Board, line: Line) -> bool:
    uid = line.user.uid
    return board.busy_count[uid] < line.user.running_limit and not line.lacks_connections(board.started[uid])


def _fill_slots(board: Board, lines: dict[Uid, Line]) -> None:
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
        head = line.first(board.has_room, partial(board.is_served, line))
        if head is None:
            _ask_for_room(board, line)
            continue
        if not _start(board, lines, head, uid):
            if line.open_count() > board.reserved[uid] and _see_to_place(board, lines, uid):
                board.reserved[uid] += 1  # so that nobody else takes this slot meanwhile
                board.free -= 1
            elif not _start_elsewhere(board, lines, uid):
                continue
        heapq.heappush(turns, (_turn(board, line), uid))


def _turn(board: Board, line: Line) -> tuple[float, float, int]:
    """Return what orders the turns; one that begins in this plan moves the user's pass on as the runner will."""
    user = line.user
    reserved = board.reserved[user.uid]
    passed = user.served + (board.turns[user.uid] + reserved) / user.weight
    return (board.busy_count[user.uid] + reserved) / user.weight, passed, user.last


def _startable(board: Board, line: Line) -> int:
    """Return how many tasks of a user could start now, but for the limit of their connections."""
    left = min(board.free, line.user.running_limit - board.busy_count[line.user.uid])
    return max(0, min(left, sum(1 for head in line.open_tasks() if board.has_room(head.host))))


def _ask_for_room(board: Board, line: Line) -> None:
    """A user has free slots and nothing but tasks of full hosts: count what could start there."""
    left = min(board.free, line.user.running_limit - board.busy_count[line.user.uid])
    for host, count in line.blocked_hosts().items():
        wanted = min(left, count, board.free - board.short[host])
        if wanted > 0:
            board.short[host] += wanted
            left -= wanted


def _start(board: Board, lines: dict[Uid, Line], head: Head, uid: Uid) -> bool:
    """Start a task on an idle worker of its folder or a new one; False where a place must become free first."""
    idle = board.idle.get((uid, head.folder))
    worker = idle.pop() if idle else None
    if worker is not None:
        begins_turn = worker.turn_room <= 0
        board.actions.append(AssignTask(worker_key=worker.key, task_id=head.task_id, begins_turn=begins_turn))
        board.turns[uid] += begins_turn
    elif board.places > 0 or _hand_place_over(board, lines, uid):
        board.places -= 1
        board.actions.append(SpawnWorker(uid=uid, task_id=head.task_id))
        board.turns[uid] += 1
    else:
        return False
    board.begin(lines[uid], head, worker)
    return True


def _hand_place_over(board: Board, lines: dict[Uid, Line], uid: Uid) -> bool:
    """Let an idle worker go whose place is free at once; False where there is none, or where enough are leaving."""
    if board.overlap <= 0 or board.places < 0:
        return False
    workers = board.find_dispensable(lines, uid)
    if not workers:
        return False
    board.actions.append(RetireWorker(worker_key=workers.pop().key))
    board.overlap -= 1
    board.places += 1
    return True


def _see_to_place(board: Board, lines: dict[Uid, Line], uid: Uid) -> bool:
    """See that a place becomes free for another worker; False where none can."""
    if board.promised > 0:
        board.promised -= 1  # a worker is on its way out: its place is the one to wait for
        return True
    workers = board.find_dispensable(lines, uid)
    if not workers:
        return False
    board.actions.append(RetireWorker(worker_key=workers.pop().key))
    return True


def _start_elsewhere(board: Board, lines: dict[Uid, Line], uid: Uid) -> bool:
    """Start a later task of a user, whose folder has a worker that is to be worth its start first."""
    for (owner, folder), workers in board.idle.items():
        if owner == uid and workers and folder in lines[uid].lanes:
            head = lines[uid].lanes[folder].first(board.has_room)
            if head is not None:
                return _start(board, lines, head, uid)
    return False


def _shrink(board: Board) -> None:
    """Retire idle workers where there are more workers than slots."""
    excess = len(board.snapshot.workers) - board.snapshot.slots
    retired = sum(1 for action in board.actions if isinstance(action, RetireWorker))
    for workers in board.idle.values():
        while workers and retired < excess:
            board.actions.append(RetireWorker(worker_key=workers.pop().key))
            retired += 1


def _clear_out(board: Board, lines: dict[Uid, Line]) -> None:
    """Where a user's workers are started in new folders, retire some in old ones, or they could become very many."""
    started = Counter(action.uid for action in board.actions if isinstance(action, SpawnWorker))
    unwanted: dict[Uid, list[WorkerView]] = {}
    for (uid, folder), workers in board.idle.items():
        if started[uid] and folder not in lines[uid].lanes:
            unwanted.setdefault(uid, []).extend(workers)
    for uid, workers in unwanted.items():
        count = min(started[uid], len(workers) - MOST_IDLE)
        board.actions += [RetireWorker(worker_key=worker.key) for worker in workers[: max(0, count)]]
