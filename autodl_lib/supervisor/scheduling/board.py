"""The board on which a plan is made: what is free, who has what, and what has been decided so far.

Runs as: the supervisor.  Talks to: nobody; no I/O.
Invariants: a worker that leaves keeps its place as long as it has anything to do, and then as well where enough others
(`most_freed`) are on their way out: there are never more processes than slots and these, and of few slots, none more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from autodl_lib.contract.task import Uid
from autodl_lib.supervisor.scheduling.line import Head, Line
from autodl_lib.supervisor.scheduling.picture import Action, Snapshot, WorkerView

_MOST_FREED = 8
_SLOTS_FOR_ONE_FREED = 4

Place = tuple[Uid, str]
"""A user and a folder: what workers are for."""


@dataclass(slots=True)
class Board:
    """The pieces while a plan is made.

    `free` slots have no busy worker, `places` no process. `overlap`: so many workers may yet be let go whose place is
    free at once. `promised` places become free by themselves, when workers have left. `begun`: what idle workers
    have been given.
    """

    snapshot: Snapshot
    free: int
    places: int
    overlap: int
    promised: int
    room: dict[str, int]
    idle: dict[Place, list[WorkerView]] = field(default_factory=dict)
    busy_places: set[Place] = field(default_factory=set)
    busy_count: Counter[Uid] = field(default_factory=Counter)
    reserved: Counter[Uid] = field(default_factory=Counter)
    started: Counter[Uid] = field(default_factory=Counter)
    turns: Counter[Uid] = field(default_factory=Counter)
    busy_at: set[tuple[Uid, str]] = field(default_factory=set)
    workers_at: Counter[str] = field(default_factory=Counter)
    short: Counter[str] = field(default_factory=Counter)
    quick: Counter[Place] = field(default_factory=Counter)
    spare: Counter[Place] = field(default_factory=Counter)
    begun: dict[str, Head] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)

    def has_room(self, host: str) -> bool:
        """Return whether a host has a connection free."""
        return self.room.get(host, self.snapshot.host_limit) > 0

    def can_share(self, host: str) -> bool:
        """Return whether a host has connections for more workers than are at it: where it is full, some have several.

        Workers that are leaving are not counted: theirs become free by themselves.
        """
        return self.workers_at[host] < self.snapshot.host_limit

    def occupy(self, uid: Uid, host: str) -> None:
        """Take a connection of a host."""
        self.room[host] = self.room.get(host, self.snapshot.host_limit) - 1
        self.busy_at.add((uid, host))
        self.workers_at[host] += 1

    def begin(self, line: Line, head: Head, worker: WorkerView | None) -> None:
        """Take note of a start in a slot that was free, on an idle worker or (None) a new one."""
        uid = line.user.uid
        place = uid, head.folder
        line.start(head)
        self.free -= 1
        self.busy_count[uid] += 1
        self.started[uid] += 1
        self.busy_places.add(place)
        self.occupy(uid, head.host)
        if worker is not None:
            self.begun[worker.key] = head
        expected = worker if worker is not None else line.user
        if expected.is_quick:
            self.quick[place] += 1
            self.spare[place] += expected.room - 1

    def is_served(self, line: Line, folder: str) -> bool:
        """Return whether the small files in a folder have workers enough: one more would take time from them.

        So it is where these have room for all of them, and where the processors are what limits.
        """
        place = line.user.uid, folder
        if not self.quick[place]:
            return False
        return self.spare[place] >= line.count_in(folder) or sum(self.quick.values()) >= self.snapshot.quick_limit

    def is_unserved(self, line: Line) -> bool:
        """Return whether a user who has nothing running at all could have, once a slot is free."""
        return not self.busy_count[line.user.uid] and self.could_start(line)

    def could_start(self, line: Line) -> bool:
        """Return whether a slot that becomes free is of use to a user."""
        uid = line.user.uid
        if self.busy_count[uid] >= line.user.running_limit or line.lacks_connections(self.started[uid]):
            return False
        return any(self.has_room(head.host) for head in line.open_tasks())

    def find_dispensable(self, lines: Mapping[Uid, Line], uid: Uid) -> list[WorkerView]:
        """Return idle workers of which one may go so that a user has a place, best those without work to come."""
        for is_wanted in (False, True):
            for (owner, folder), workers in self.idle.items():
                if not workers or (owner in lines and folder in lines[owner].lanes) is not is_wanted:
                    continue
                if is_wanted and owner == uid and workers[-1].is_fresh:
                    continue  # else two folders in turn would cost a process for each file
                return workers
        return []


def most_freed(slots: int) -> int:
    """Return how many workers may be on their way out, with nothing left to do, whose places others have already."""
    return min(slots // _SLOTS_FOR_ONE_FREED, _MOST_FREED)


def set_up(snapshot: Snapshot) -> Board:
    """Return the board as it is before anything is decided."""
    freed = most_freed(snapshot.slots)
    leaving = snapshot.leaving - min(snapshot.freed, freed)
    places = snapshot.slots - len(snapshot.workers) - leaving
    board = Board(
        snapshot=snapshot,
        free=snapshot.slots - sum(1 for worker in snapshot.workers if worker.load),
        places=places,
        overlap=max(0, freed - snapshot.freed),
        promised=max(0, snapshot.slots - len(snapshot.workers)) - max(0, places),
        room=dict(snapshot.host_room),
    )
    for worker in snapshot.workers:
        place = worker.uid, worker.folder
        if not worker.load:
            board.idle.setdefault(place, []).append(worker)
            continue
        board.busy_count[worker.uid] += 1
        board.busy_places.add(place)
        board.busy_at.update((worker.uid, host) for host in worker.hosts)
        board.workers_at.update(worker.hosts)
        if worker.is_quick:
            board.quick[place] += 1
            board.spare[place] += max(0, worker.room - worker.load)
    return board
