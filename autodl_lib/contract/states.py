"""A task's life as data: its states, the events that move it, and what its owner wants.

Runs as: everyone.  Talks to: nobody; no I/O.
Invariants: TRANSITIONS is the only place that says which move is legal. The store applies it,
the database's CHECK and the manual's state diagram are compared with it by tests.
"""

from __future__ import annotations

from enum import StrEnum


class TaskState(StrEnum):
    """What is true of a task."""

    ENQUEUED = "enqueued"
    DOWNLOADING = "downloading"
    RETRYING = "retrying"
    PAUSED = "paused"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CLEARED = "cleared"


class Want(StrEnum):
    """What a task's owner wants of it; the state follows when the worker has let go."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class TaskEvent(StrEnum):
    """What can happen to a task; each one that moves it is a row of its history."""

    START = "start"
    FINISH = "finish"
    FAIL = "fail"
    POSTPONE = "postpone"
    LOSE = "lose"
    INTERRUPT = "interrupt"
    DUE = "due"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    CLEAR = "clear"
    RETRY = "retry"
    SET_URL = "set_url"


INITIAL_STATES = frozenset({TaskState.ENQUEUED, TaskState.PAUSED})

TRANSITIONS: dict[tuple[TaskState, TaskEvent], TaskState] = {
    (TaskState.ENQUEUED, TaskEvent.START): TaskState.DOWNLOADING,
    (TaskState.ENQUEUED, TaskEvent.PAUSE): TaskState.PAUSED,
    (TaskState.ENQUEUED, TaskEvent.CANCEL): TaskState.CANCELLED,
    (TaskState.ENQUEUED, TaskEvent.CLEAR): TaskState.CLEARED,
    # The worker finished its work: published, gave up, will try again later, or vanished.
    (TaskState.DOWNLOADING, TaskEvent.FINISH): TaskState.FINISHED,
    (TaskState.DOWNLOADING, TaskEvent.FAIL): TaskState.FAILED,
    (TaskState.DOWNLOADING, TaskEvent.POSTPONE): TaskState.RETRYING,
    (TaskState.DOWNLOADING, TaskEvent.LOSE): TaskState.RETRYING,
    # The daemon stopped, or took the task back: it goes on from its part file, nobody's fault.
    (TaskState.DOWNLOADING, TaskEvent.INTERRUPT): TaskState.ENQUEUED,
    (TaskState.DOWNLOADING, TaskEvent.PAUSE): TaskState.PAUSED,
    (TaskState.DOWNLOADING, TaskEvent.CANCEL): TaskState.CANCELLED,
    (TaskState.RETRYING, TaskEvent.DUE): TaskState.ENQUEUED,
    (TaskState.RETRYING, TaskEvent.RETRY): TaskState.ENQUEUED,
    (TaskState.RETRYING, TaskEvent.PAUSE): TaskState.PAUSED,
    (TaskState.RETRYING, TaskEvent.CANCEL): TaskState.CANCELLED,
    (TaskState.RETRYING, TaskEvent.CLEAR): TaskState.CLEARED,
    (TaskState.PAUSED, TaskEvent.RESUME): TaskState.ENQUEUED,
    (TaskState.PAUSED, TaskEvent.CANCEL): TaskState.CANCELLED,
    (TaskState.FAILED, TaskEvent.RETRY): TaskState.ENQUEUED,
    (TaskState.FAILED, TaskEvent.CANCEL): TaskState.CANCELLED,
    (TaskState.CANCELLED, TaskEvent.RETRY): TaskState.ENQUEUED,
    (TaskState.CLEARED, TaskEvent.RETRY): TaskState.ENQUEUED,
    # Another URL for the same file: a worker that has the task lets go of it (interrupt) and goes on from there.
    (TaskState.ENQUEUED, TaskEvent.SET_URL): TaskState.ENQUEUED,
    (TaskState.DOWNLOADING, TaskEvent.SET_URL): TaskState.DOWNLOADING,
    (TaskState.RETRYING, TaskEvent.SET_URL): TaskState.ENQUEUED,
    (TaskState.PAUSED, TaskEvent.SET_URL): TaskState.PAUSED,
    (TaskState.FAILED, TaskEvent.SET_URL): TaskState.FAILED,
}

SETTLED = frozenset({TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELLED, TaskState.CLEARED})
"""States that a task leaves only when its owner asks; `wait` and `get` end here."""

PENDING = frozenset({TaskState.ENQUEUED, TaskState.DOWNLOADING, TaskState.RETRYING})
"""States that go on by themselves: a daemon with such a task is not idle."""


def next_state(state: TaskState, event: TaskEvent) -> TaskState | None:
    """Return where `event` takes a task that is in `state`, or None where the move is not legal."""
    return TRANSITIONS.get((state, event))
