"""Who follows which tasks, and what they are told when.

Runs as: the supervisor.  Talks to: the store (what commits changed), the pool's live figures, connections.
Invariants: what waits for a slow follower are task numbers, each once, in the order of their first change,
never messages, and of those MAX_DIRTY: where more have changed, the follower's tasks are gone through instead. A
follower may miss a state in between, never the last one. A user has MAX_PER_USER followers at most.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from autodl_lib.contract.errors import Busy
from autodl_lib.contract.states import SETTLED
from autodl_lib.contract.task import Task, TaskId, Uid
from autodl_lib.store.listing import Page, Selection
from autodl_lib.store.rows import Moved

FLUSH_DELAY_S = 0.05
_BEHIND_DELAY_S = 0.01
PROGRESS_INTERVAL_S = 0.25
MAX_DIRTY = 2000
MAX_PER_USER = 64
_CHUNK = 200

ReadPage = Callable[[Selection, int, int], Page]


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Subscription:
    """One follower, of user `owner`: of some tasks (`ids`), of all tasks of `uid`, or (both None) of all tasks.

    `tell` sends them tasks as they are now. `walked`: too many have changed, so all are gone through, up to this number
    so far; those that were settled before `walk_began` have not changed. `held`: nothing is sent yet. `ends`: only
    settled tasks are of interest.
    """

    owner: Uid
    ids: set[TaskId] | None
    uid: Uid | None
    progress: bool
    ends: bool = False
    tell: Callable[[list[TaskId]], None]
    writable: Callable[[], bool]
    dirty: dict[TaskId, None] = dataclasses.field(default_factory=dict)
    flush: asyncio.TimerHandle | None = None
    flushed_mono: float = 0.0
    held: bool = True
    walked: TaskId | None = None
    walk_began: float = 0.0
    walk_again: bool = False

    def note(self, task_ids: Iterable[TaskId]) -> None:
        """Take in what has changed."""
        self.dirty.update(dict.fromkeys(task_ids))
        if self.ids is None and len(self.dirty) > MAX_DIRTY:
            self.dirty.clear()
            if self.walked is None:
                self.walked, self.walk_began = TaskId(0), time.time() - 1.0
            else:
                self.walk_again = True

    @property
    def has_news(self) -> bool:
        """Whether there is anything to send."""
        return bool(self.dirty) or self.walked is not None

    def concerns(self, task_id: TaskId, uid: Uid) -> bool:
        """Return whether a task is one of those followed."""
        if self.ids is not None:
            return task_id in self.ids
        return self.uid is None or self.uid == uid


class Watchers:
    """All followers."""

    def __init__(
        self, views: Callable[[Sequence[TaskId]], list[Task]], running: Callable[[], Iterable[TaskId]], page: ReadPage
    ) -> None:
        """`views` returns tasks as they are now; `running` those whose figures move; `page` is the reader's."""
        self._views = views
        self._running = running
        self._page = page
        self._per_user: Counter[Uid] = Counter()
        self._loop = asyncio.get_running_loop()
        self._subscriptions: set[Subscription] = set()
        self._progress_timer: asyncio.TimerHandle | None = None

    def add(self, subscription: Subscription) -> None:
        """Begin to note what a follower is to be told.

        Raises: Busy.
        """
        if self._per_user[subscription.owner] >= MAX_PER_USER:
            raise Busy(f"you watch {MAX_PER_USER} times already, which is the most; end some")
        self._per_user[subscription.owner] += 1
        self._subscriptions.add(subscription)
        self._arm_progress()

    def release(self, subscription: Subscription) -> None:
        """Begin to tell a follower."""
        subscription.held = False
        self._schedule(subscription)

    def remove(self, subscription: Subscription) -> None:
        """Stop telling a follower."""
        if subscription in self._subscriptions:
            self._subscriptions.discard(subscription)
            self._per_user[subscription.owner] -= 1
        if subscription.flush is not None:
            subscription.flush.cancel()

    def close(self) -> None:
        """Tell nobody anything any more."""
        for subscription in list(self._subscriptions):
            self.remove(subscription)
        if self._progress_timer is not None:
            self._progress_timer.cancel()

    def committed(self, moved: list[Moved]) -> None:
        """Take in what a commit changed."""
        self._arm_progress()
        if not self._subscriptions:
            return
        changed: dict[TaskId, None] = {}
        settled: dict[TaskId, None] = {}
        of_user: dict[Uid, dict[TaskId, None]] = {}
        unnamed = False
        for move in moved:
            if not move.ids:
                unnamed = True
            else:
                named = dict.fromkeys(move.ids)
                changed.update(named)
                if move.new in SETTLED:
                    settled.update(named)
                of_user.setdefault(move.uid, {}).update(named)
        for subscription in self._subscriptions:
            if subscription.ids is not None:
                of_interest = settled if subscription.ends else changed
                subscription.note(subscription.ids if unnamed else subscription.ids & of_interest.keys())
            else:
                subscription.note(changed if subscription.uid is None else of_user.get(subscription.uid, ()))
            self._schedule(subscription)

    def resume(self, subscription: Subscription) -> None:
        """A follower's connection takes data again."""
        self._schedule(subscription)

    def _schedule(self, subscription: Subscription) -> None:
        idle = subscription.flush is None and not subscription.held
        if idle and subscription.has_news and subscription.writable():
            # The first change after a quiet time goes out at once, a burst in bundles, one soon after the other.
            is_behind = len(subscription.dirty) >= _CHUNK
            due_mono = subscription.flushed_mono + (_BEHIND_DELAY_S if is_behind else FLUSH_DELAY_S)
            subscription.flush = self._loop.call_at(due_mono, self._flush, subscription)

    def _flush(self, subscription: Subscription) -> None:
        subscription.flush = None
        subscription.flushed_mono = self._loop.time()
        if subscription not in self._subscriptions or not subscription.writable():
            return
        chunk = list(itertools.islice(subscription.dirty, _CHUNK))
        for task_id in chunk:
            del subscription.dirty[task_id]
        if not chunk and subscription.walked is not None:
            chunk = self._walk(subscription)
        if chunk:
            subscription.tell(chunk)
        self._schedule(subscription)

    def _walk(self, subscription: Subscription) -> list[TaskId]:
        """Return the next of a follower's tasks that may have changed."""
        assert subscription.walked is not None
        users = None if subscription.uid is None else (subscription.uid,)
        page = self._page(Selection(users=users), subscription.walked, _CHUNK)
        if page.next is not None:
            subscription.walked = page.next
        elif subscription.walk_again:
            subscription.walked, subscription.walk_again = TaskId(0), False
        else:
            subscription.walked = None
        since = subscription.walk_began
        return [task.id for task in page.tasks if task.finished_at is None or task.finished_at >= since]

    def _arm_progress(self) -> None:
        """Tick while somebody follows figures that move; nobody or nothing: no timer."""
        if self._progress_timer is None and any(item.progress for item in self._subscriptions):
            self._progress_timer = self._loop.call_later(PROGRESS_INTERVAL_S, self._tick)

    def _tick(self) -> None:
        self._progress_timer = None
        running = list(self._running())
        if not running:
            return
        for subscription in self._subscriptions:
            if not subscription.progress:
                continue
            if subscription.ids is not None:
                subscription.note(subscription.ids.intersection(running))
            else:
                mine = [task.id for task in self._views(running) if subscription.concerns(task.id, task.uid)]
                subscription.note(mine)
            self._schedule(subscription)
        self._arm_progress()
