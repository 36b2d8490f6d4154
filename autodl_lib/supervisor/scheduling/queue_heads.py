"""The heads of users' queues in memory: a plan reads of the queue on disk only what none before it has read.

Runs as: the supervisor.  Talks to: the store's reader.
Invariants: a head has all waiting tasks up to its end, in their order, as commits have told so far: what one has done
is taken over where that is plain, else the head is forgotten and read again. All of them together are no larger than
MOST_REMEMBERED, however many users and tasks there are. What is remembered may be older than what is on disk by a
commit that is not heard of yet: whoever hands a task out asks for it as it is then.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from itertools import filterfalse, groupby, islice, takewhile
from operator import itemgetter

from autodl_lib.contract.states import TaskState
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.store.reader import FIRST_PLACE, Place, Reader
from autodl_lib.store.rows import Moved
from autodl_lib.supervisor.scheduling.picture import WaitingTask

MOST_REMEMBERED = 32_768
"""So many tasks, of all users; one with a long path counts for several."""

_TEXT_LENGTH = 256
_READ_AHEAD = 2
_MOST_FRESH = 256
"""So many new tasks in front of the end are looked at by themselves; with more, the head is read anew."""

Row = tuple[int, TaskId, str, str]
"""A task as the reader has it: its priority negated, its number, its host and folder."""


@dataclass(slots=True)
class _Head:
    """The first tasks of a queue, up to the place `end`; `is_whole` when nothing waits behind that.

    `levels` are its tasks by priority, negated, the first to run first. `fresh` are lots of new tasks that belong in
    front of the end and that nobody has looked at yet.
    """

    levels: dict[int, dict[TaskId, WaitingTask]] = field(default_factory=dict)
    level_of: dict[TaskId, int] = field(default_factory=dict)
    fresh: list[tuple[int, tuple[TaskId, ...]]] = field(default_factory=list)
    end: Place = FIRST_PLACE
    is_whole: bool = False
    is_sorted: bool = True
    """Whether `levels` are in their order."""
    size: int = 1

    def free(self, count: int, leased: Set[TaskId]) -> list[WaitingTask]:
        """Return the first tasks that are not leased."""
        if not self.is_sorted:
            self.levels, self.is_sorted = dict(sorted(self.levels.items())), True
        found: list[WaitingTask] = []
        for tasks in self.levels.values():
            if len(found) == count:
                break
            free = islice(filterfalse(leased.__contains__, tasks), count - len(found))
            found += [tasks[task_id] for task_id in free]
        return found

    def append(self, rows: list[Row]) -> bool:
        """Take in the tasks behind the end; False where one is in front of it as well, so it has been put back."""
        if any(row[1] in self.level_of for row in rows):
            return False
        self._put(rows)
        if rows:
            self.end = rows[-1][:2]
        return True

    def insert(self, rows: list[Row]) -> bool:
        """Take in new tasks in front of the end; False where one is not the last of its priority."""
        before_end = list(takewhile(lambda row: row[:2] <= self.end, rows))
        unknown = [row for row in before_end if row[1] not in self.levels.get(row[0], ())]
        if any(row[1] in self.level_of for row in unknown):
            return False
        for level, rows_of_level in groupby(unknown, itemgetter(0)):
            tasks = self.levels.get(level)
            if tasks and next(rows_of_level)[1] < next(reversed(tasks)):
                return False
        self._put(unknown)
        return True

    def _put(self, rows: list[Row]) -> None:
        texts: dict[str, str] = {}
        for level, task_id, host, folder in rows:
            tasks = self.levels.get(level)
            if tasks is None:
                self.is_sorted = not self.levels or (self.is_sorted and level > next(reversed(self.levels)))
                tasks = self.levels[level] = {}
            tasks[task_id] = (task_id, texts.setdefault(host, host), texts.setdefault(folder, folder))
            self.level_of[task_id] = level
            self.size += _size_of(host, folder)

    def take(self, move: Moved) -> bool:
        """Take over what a commit has done; False where it does not say what that means here."""
        if move.new is TaskState.ENQUEUED:
            if move.priority is None or not move.ids:
                return False
            self.is_whole = False
            if (-move.priority, move.ids[0]) <= self.end:
                self.fresh.append((-move.priority, move.ids))
            return sum(len(ids) for _, ids in self.fresh) <= _MOST_FRESH
        if move.old is TaskState.ENQUEUED:
            for task_id in move.ids:
                self._drop(task_id)
            return bool(move.ids)
        return True

    def _drop(self, task_id: TaskId) -> None:
        """Forget a task that waits no more, if it is here."""
        level = self.level_of.pop(task_id, None)
        if level is None:
            return
        tasks = self.levels[level]
        _, host, folder = tasks.pop(task_id)
        self.size -= _size_of(host, folder)
        if not tasks:
            del self.levels[level]


class QueueHeads:
    """All that is remembered."""

    def __init__(self, read: Reader) -> None:
        self._read = read
        self._heads: dict[Uid, _Head] = {}
        self._size = 0
        self.elsewhere = read.waiting_elsewhere

    def take(self, moved: Iterable[Moved]) -> None:
        """Take over what a commit has done."""
        for move in moved:
            head = self._heads.get(move.uid)
            if head is None:
                continue
            before = head.size
            is_plain = head.take(move)
            self._size += head.size - before
            if not is_plain:
                self.forget([move.uid])

    def forget(self, uids: Iterable[Uid] | None = None) -> None:
        """Something has happened to tasks of these users, or of somebody."""
        for uid in list(self._heads) if uids is None else uids:
            head = self._heads.pop(uid, None)
            if head is not None:
                self._size -= head.size

    def first(self, uid: Uid, count: int, leased: Set[TaskId]) -> list[WaitingTask]:
        """Return a user's first tasks that are not leased, the next to run first."""
        head = self._with_fresh(uid)
        found = head.free(count, leased) if head is not None else []
        more = _READ_AHEAD * (count - len(found))
        while len(found) < count and (head is None or not head.is_whole):
            head = self._read_on(uid, more)
            found = head.free(count, leased)
            more *= 2
        while self._size > MOST_REMEMBERED:
            self.forget([max(self._heads, key=lambda uid: self._heads[uid].size)])
        return found

    def _with_fresh(self, uid: Uid) -> _Head | None:
        """Return a user's head with the new tasks that belong into it; None where it must be read anew."""
        head = self._heads.get(uid)
        if head is None or not head.fresh:
            return head
        before = head.size
        lots, head.fresh = head.fresh, []
        is_plain = True
        for level, ids in lots:
            rows = self._read.waiting(uid, len(ids), (level, TaskId(ids[0] - 1)))
            is_plain = is_plain and head.insert(rows)
        self._size += head.size - before
        if is_plain:
            return head
        self.forget([uid])
        return None

    def _read_on(self, uid: Uid, count: int) -> _Head:
        """Read what comes behind a user's head."""
        head = self._heads.get(uid)
        if head is None:
            head = self._heads[uid] = _Head()
            self._size += head.size
        before = head.size
        rows = self._read.waiting(uid, count, head.end)
        is_behind = head.append(rows)
        self._size += head.size - before
        if not is_behind:
            self.forget([uid])
            return self._read_on(uid, count)
        head.is_whole = len(rows) < count
        return head


def _size_of(host: str, folder: str) -> int:
    return 1 + (len(host) + len(folder)) // _TEXT_LENGTH
