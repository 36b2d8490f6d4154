"""A user's waiting tasks while a plan is made: in lanes by folder, for a worker serves one folder.

Runs as: the supervisor.  Talks to: nobody; no I/O.
Invariants: in a lane, tasks of one host leave in their order; what is taken is not there again.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Set
from typing import NamedTuple

from autodl_lib.contract.task import TaskId
from autodl_lib.supervisor.scheduling.picture import UserQueue


class Head(NamedTuple):
    """A task that could be the next one; `place` is its number in the user's queue. One is made of each."""

    place: int
    task_id: TaskId
    host: str
    folder: str


class Lane:
    """The tasks of one folder: the open ones, and those before them that were set aside since their host is full."""

    def __init__(self, folder: str) -> None:
        self.open: deque[Head] = deque()
        self.blocked: dict[str, deque[Head]] = {}
        self.folder = folder

    def first(self, is_free: Callable[[str], bool]) -> Head | None:
        """Return the best open task whose host is free; those before it are set aside."""
        while self.open:
            head = self.open[0]
            if is_free(head.host):
                return head
            self.blocked.setdefault(head.host, deque()).append(head)
            self.open.popleft()
        return None

    def take(self, at: Set[str], is_free: Callable[[str], bool]) -> Head | None:
        """Take the best task for a worker that is `at` some hosts, where one more task costs no connection."""
        head = self.first(lambda host: host in at or is_free(host))
        best = head
        for host in self.blocked if len(self.blocked) < len(at) else at:
            if host in at and host in self.blocked:
                earlier = self.blocked[host][0]
                if best is None or earlier.place < best.place:
                    best = earlier
        if best is None:
            return None
        if best is head:
            return self.open.popleft()
        tasks = self.blocked[best.host]
        tasks.popleft()
        if not tasks:
            del self.blocked[best.host]
        return best


class Line:
    """A user's queue."""

    def __init__(self, user: UserQueue) -> None:
        self.user = user
        self.lanes: dict[str, Lane] = {}
        for place, (task_id, host, folder) in enumerate(user.waiting):
            lane = self.lanes.get(folder)
            if lane is None:
                lane = self.lanes[folder] = Lane(folder)
            lane.open.append(Head(place, task_id, host, folder))
        self._next = [(lane.open[0].place, lane.folder) for lane in self.lanes.values()]  # a heap, for it is in order

    def first(self, is_free: Callable[[str], bool], is_served: Callable[[str], bool]) -> Head | None:
        """Return the best task whose host is free; a folder that `is_served` well enough is passed over for good."""
        while self._next:
            known, folder = self._next[0]
            head = None if is_served(folder) else self.lanes[folder].first(is_free)
            if head is None:
                heapq.heappop(self._next)
            elif head.place == known:
                return head
            else:
                heapq.heapreplace(self._next, (head.place, folder))
        return None

    def start(self, head: Head) -> None:
        """Take what `first` has returned."""
        self.lanes[head.folder].open.popleft()

    def count_in(self, folder: str) -> float:
        """Return how many tasks wait in a folder, as far as is known: any number where all are of that one."""
        if self.user.has_more and len(self.lanes) == 1:
            return math.inf
        lane = self.lanes[folder]
        return len(lane.open) + sum(map(len, lane.blocked.values()))

    def open_count(self) -> int:
        """Return how many tasks were not set aside."""
        return sum(len(lane.open) for lane in self.lanes.values())

    def open_tasks(self) -> Iterator[Head]:
        """Return the tasks that were not set aside."""
        return (head for lane in self.lanes.values() for head in lane.open)

    def blocked_hosts(self) -> Counter[str]:
        """Return how many tasks were set aside, by host."""
        counts: Counter[str] = Counter()
        for lane in self.lanes.values():
            for host, tasks in lane.blocked.items():
                counts[host] += len(tasks)
        return counts

    def lacks_connections(self, started: int) -> bool:
        """Tell whether the user has no connection left once `started` more have begun."""
        return self.user.connections is not None and started >= self.user.connections
