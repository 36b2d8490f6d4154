"""What busy workers are handed ahead, so that small files need no round trip each.

Runs as: the supervisor.  Talks to: nobody; no I/O.
Invariants: where a user waits who has nothing running, and in slots beyond their user's share, no more than fits into
what is left of the slot's turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from autodl_lib.contract.task import Uid
from autodl_lib.supervisor.scheduling.board import Board
from autodl_lib.supervisor.scheduling.crew import resting
from autodl_lib.supervisor.scheduling.line import Line
from autodl_lib.supervisor.scheduling.picture import AssignTask, WorkerView


def hand_ahead(board: Board, lines: Mapping[Uid, Line]) -> None:
    """Fill the room of busy workers, evenly."""
    awaited = _awaited_hosts(board, lines)
    rooms = _rooms(board, lines)
    workers = [worker for worker in board.snapshot.workers if rooms.get(worker.key, 0) > 0]
    hosts = {worker.key: set(worker.hosts) for worker in workers}
    for key, begun in board.begun.items():
        if key in hosts:
            hosts[key].add(begun.host)

    def is_free(host: str) -> bool:
        return host not in awaited and board.has_room(host)

    while workers:
        left = []
        for worker in workers:
            lane = lines[worker.uid].lanes.get(worker.folder)
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


def _rooms(board: Board, lines: Mapping[Uid, Line]) -> dict[str, int]:
    """Return how many more tasks each worker may be handed: none where there are more busy ones than slots."""
    if sum(board.busy_count.values()) > board.snapshot.slots:
        return {}
    busy = [worker for worker in board.snapshot.workers if worker.load or worker.key in board.begun]
    at_rest = resting(busy, board.snapshot.quick_limit) | _making_way(board, lines)
    is_contended = any(board.is_unserved(line) for line in lines.values())
    fed = frozenset[Uid]() if is_contended else _fed(board, lines)
    return {
        worker.key: (worker.room if worker.uid in fed else min(worker.room, worker.turn_room)) - max(1, worker.load)
        for worker in busy
        if worker.uid in lines
        and worker.key not in at_rest
        and board.busy_count[worker.uid] <= lines[worker.uid].user.running_limit
    }


def _making_way(board: Board, lines: Mapping[Uid, Line]) -> set[str]:
    """Return the workers that get no more ahead, since a task of their user waits for one in another folder.

    One of a user at a time: that with the least to do, of those that would get more (others become free by themselves),
    when it has been there for long enough to be worth its start.
    """
    chosen: dict[Uid, WorkerView] = {}
    awaited: dict[Uid, set[str]] = {}
    for worker in board.snapshot.workers:
        uid = worker.uid
        if uid not in lines or board.reserved[uid] or not worker.load or worker.room <= 1 or worker.is_fresh:
            continue
        if uid in chosen and worker.load >= chosen[uid].load:
            continue
        if uid not in awaited:
            awaited[uid] = _homeless_hosts(board, lines[uid])
        if any(_frees(board, worker, host) for host in awaited[uid]):
            chosen[uid] = worker
    return {worker.key for worker in chosen.values()}


def _homeless_hosts(board: Board, line: Line) -> set[str]:
    """Return the hosts of the tasks whose folders have no worker at work."""
    hosts: set[str] = set()
    for folder, lane in line.lanes.items():
        if (line.user.uid, folder) not in board.busy_places:
            hosts.update(head.host for head in lane.open)
            hosts.update(lane.blocked)
    return hosts


def _frees(board: Board, worker: WorkerView, host: str) -> bool:
    """Return whether a task of a host could run once a worker has nothing more to do.

    A full host is no reason to wait: the worker may be there itself, and where others have several connections, room is
    asked of them as soon as a slot is free, so that nobody makes way where it has been.
    """
    if board.has_room(host):
        return True
    if board.can_share(host):
        return not board.short[host]
    return host in worker.hosts


def _fed(board: Board, lines: Mapping[Uid, Line]) -> frozenset[Uid]:
    """Return the users whose workers get more ahead: the others' are to become idle, and their slots free.

    Else who has many small files would keep each slot that they once had.
    """
    wanted = math.inf
    for uid, line in lines.items():
        if board.could_start(line):
            wanted = min(wanted, (board.busy_count[uid] + 1) / line.user.weight)
    return frozenset(uid for uid, line in lines.items() if board.busy_count[uid] / line.user.weight <= wanted)


def _awaited_hosts(board: Board, lines: Mapping[Uid, Line]) -> set[str]:
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
