"""What a daemon of several users should answer: a model of all queues, as simple as the manual has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from autodl_lib.contract.states import TaskEvent, TaskState, next_state

ABSENT = 999_999_999
"""A number that no task has."""

WAITING = (TaskState.ENQUEUED, TaskState.RETRYING)


class Kind(StrEnum):
    """What comes of a URL, once it is asked."""

    WHOLE = "whole"
    MISSING = "missing"
    REFUSED = "refused"
    SLOW = "slow"


ENDS_IN = {
    Kind.WHOLE: TaskState.FINISHED,
    Kind.MISSING: TaskState.FAILED,
    Kind.REFUSED: TaskState.RETRYING,
    Kind.SLOW: TaskState.DOWNLOADING,
}


class Denied(Exception):
    """The daemon should refuse, with this code."""


@dataclass(slots=True)
class ModelTask:
    """One task."""

    id: int
    owner: str
    kind: Kind
    state: TaskState
    url: str
    priority: int = 0
    limit_rate_bps: int = 0
    label: str | None = None


@dataclass(slots=True)
class QueueModel:
    """All tasks and holds; callers are names, `admins` those who administer."""

    admins: frozenset[str]
    tasks: dict[int, ModelTask] = field(default_factory=dict)
    held: set[str | None] = field(default_factory=set)
    """Who has their queue on hold; None is everybody's, by an administrator."""

    def visible(self, caller: str, ids: Iterable[int]) -> list[ModelTask]:
        """Return tasks that exist for a caller, each once; Denied where one does not."""
        return [self.one(caller, task_id) for task_id in dict.fromkeys(ids)]

    def one(self, caller: str, task_id: int) -> ModelTask:
        """Return one task that exists for a caller."""
        task = self.tasks.get(task_id)
        if task is None or (task.owner != caller and caller not in self.admins):
            raise Denied("no_such_task")
        return task

    def scope(self, caller: str, everybody: bool) -> list[ModelTask]:
        """Return the tasks that a request without numbers is about."""
        if everybody and caller not in self.admins:
            raise Denied("not_allowed")
        return [task for task in self.tasks.values() if everybody or task.owner == caller]

    def add(self, task: ModelTask, *, paused: bool) -> None:
        """Queue a task."""
        self.tasks[task.id] = task
        task.state = TaskState.PAUSED if paused else TaskState.ENQUEUED

    def move(self, caller: str, ids: Sequence[int], event: TaskEvent) -> None:
        """Take tasks along an event, all or none."""
        found = self.visible(caller, ids)
        if any(next_state(task.state, event) is None for task in found):
            raise Denied("wrong_state")
        for task in found:
            task.state = next_state(task.state, event) or task.state

    def set_url(self, caller: str, task_id: int, url: str, kind: Kind) -> None:
        """Give a task another URL: its owner may."""
        task = self.one(caller, task_id)
        if task.owner != caller:
            raise Denied("not_allowed")
        after = next_state(task.state, TaskEvent.SET_URL)
        if after is None:
            raise Denied("wrong_state")
        task.url, task.kind = url, kind
        # What runs is taken back, and goes on with the new one.
        task.state = TaskState.ENQUEUED if after is TaskState.DOWNLOADING else after

    def set_limit(self, caller: str, ids: Sequence[int], rate_bps: int) -> None:
        """Limit tasks, all or none."""
        found = self.visible(caller, ids)
        if any(task.state is TaskState.FINISHED for task in found):
            raise Denied("wrong_state")
        for task in found:
            task.limit_rate_bps = rate_bps

    def clear(self, caller: str, everybody: bool) -> int:
        """Drop what waits."""
        dropped = [task for task in self.scope(caller, everybody) if task.state in WAITING]
        for task in dropped:
            task.state = TaskState.CLEARED
        return len(dropped)

    def is_held(self, owner: str) -> bool:
        """Tell whether nothing of a user's is started."""
        return None in self.held or owner in self.held

    def run(self) -> None:
        """Start all that may start, and let it come to what comes of it."""
        for task in self.tasks.values():
            if task.state is TaskState.ENQUEUED and not self.is_held(task.owner):
                task.state = ENDS_IN[task.kind]
