"""Who follows which tasks, and what they are told when.

Runs as: the supervisor.  Talks to: the store (what commits changed), the pool's live figures, connections.
Invariants: what waits for a slow follower are task numbers, each once, in the order of their first change,
never messages, so it is bounded by the tasks; a follower may miss a state in between, never the last one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Callable, Iterable

from autodl_lib.contract.task import Task, TaskId, Uid
from autodl_lib.store.rows import Moved

FLUSH_DELAY_S = 0.05
PROGRESS_INTERVAL_S = 0.25
_CHUNK = 200


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Subscription:
    """One follower: of some tasks (`ids`), of all tasks of `uid`, or (both None) of all tasks."""

    ids: set[TaskId] | None
    uid: Uid | None
    progress: bool
    send: Callable[[list[Task]], None]
    writable: Callable[[], bool]
    dirty: dict[TaskId, None] = dataclasses.field(default_factory=dict)
    flush: asyncio.TimerHandle | None = None
    flushed_mono: float = 0.0

    def concerns(self, task_id: TaskId, uid: Uid) -> bool:
        """Return whether a task is one of those followed."""
        if self.ids is not None:
            return task_id in self.ids
        return self.uid is None or self.uid == uid


class Watchers:
    """All followers."""

    def __init__(self, view: Callable[[TaskId], Task | None], running: Callable[[], Iterable[TaskId]]) -> None:
        """`view` returns a task as it is now; `running` the tasks whose figures move."""
        self._view = view
        self._running = running
        self._loop = asyncio.get_running_loop()
        self._subscriptions: set[Subscription] = set()
        self._progress_timer: asyncio.TimerHandle | None = None

    def add(self, subscription: Subscription) -> None:
        """Begin to tell a follower."""
        self._subscriptions.add(subscription)
        self._arm_progress()

    def remove(self, subscription: Subscription) -> None:
        """Stop telling a follower."""
        self._subscriptions.discard(subscription)
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
        for subscription in self._subscriptions:
            for move in moved:
                if move.id is None:
                    subscription.dirty.update(dict.fromkeys(subscription.ids or ()))
                elif subscription.concerns(move.id, move.uid):
                    subscription.dirty[move.id] = None
            self._schedule(subscription)

    def resume(self, subscription: Subscription) -> None:
        """A follower's connection takes data again."""
        self._schedule(subscription)

    def _schedule(self, subscription: Subscription) -> None:
        if subscription.dirty and subscription.flush is None and subscription.writable():
            # The first change after a quiet time goes out at once, a burst in bundles.
            due_mono = subscription.flushed_mono + FLUSH_DELAY_S
            subscription.flush = self._loop.call_at(due_mono, self._flush, subscription)

    def _flush(self, subscription: Subscription) -> None:
        subscription.flush = None
        subscription.flushed_mono = self._loop.time()
        if subscription not in self._subscriptions or not subscription.writable():
            return
        chunk = list(itertools.islice(subscription.dirty, _CHUNK))
        for task_id in chunk:
            del subscription.dirty[task_id]
        tasks = [task for task_id in chunk if (task := self._view(task_id)) is not None]
        if tasks:
            subscription.send(tasks)
        self._schedule(subscription)

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
                subscription.dirty.update(dict.fromkeys(subscription.ids.intersection(running)))
            else:
                mine = [
                    task_id
                    for task_id in running
                    if (task := self._view(task_id)) is not None and subscription.concerns(task_id, task.uid)
                ]
                subscription.dirty.update(dict.fromkeys(mine))
            self._schedule(subscription)
        self._arm_progress()
