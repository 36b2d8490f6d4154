"""The caller's tasks as candidates for completion, from a daemon that runs.

Runs as: the caller, while a shell waits.  Talks to: the daemon's socket, if it is there; no daemon is started.
Invariants: it takes at most half a second, whatever answers; what has come by then counts.
How it fails: without a word, with no candidates.
Known limits: where systemd listens on the socket (autodl.socket), connecting starts the machine's daemon.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from autodl_lib.contract.requests.overviews import List
from autodl_lib.contract.states import SETTLED, TRANSITIONS, TaskEvent, TaskState
from autodl_lib.contract.task import Task

TIME_LIMIT_S = 0.5
MOST = 200
_PAGE = 1000

_OF_UNSETTLED = frozenset({"limit", "priority", "wait", "watch"})


class _OutOfTime(Exception):
    """The shell has waited long enough."""


def completable_states(command: str) -> tuple[TaskState, ...]:
    """Return the states of the tasks that a command makes sense for."""
    event = command.replace("-", "_")
    if event in set(TaskEvent):
        return tuple(state for state in TaskState if (state, event) in TRANSITIONS)
    return tuple(state for state in TaskState if command not in _OF_UNSETTLED or state not in SETTLED)


def tasks_for(command: str, socket: str | None, prefix: str) -> list[Task]:
    """Return the tasks whose number begins with `prefix`, the newest first."""
    found: list[Task] = []
    try:
        with _time_limit(TIME_LIMIT_S):
            for task in _ask(completable_states(command), socket):
                if str(task.id).startswith(prefix):
                    found.append(task)
    except Exception:  # noqa: BLE001, S110 - a line that is being typed is no place for messages
        pass
    return found[: -MOST - 1 : -1]


def _ask(states: tuple[TaskState, ...], explicit: str | None) -> Iterator[Task]:
    from autodl_lib.client.connection import Connection
    from autodl_lib.client.locate import Origin, check_private, locate
    from autodl_lib.client.results import decoded
    from autodl_lib.contract.replies.tasks import TaskPage

    place = locate(explicit)
    if place.origin is Origin.PRIVATE:
        check_private(os.path.dirname(place.socket))
    with Connection(place.socket) as connection:
        after: int | None = 0
        while after is not None:
            page = decoded(TaskPage, connection.call(List(states=states, after=after, limit=_PAGE)))
            yield from page.tasks
            after = page.next


@contextmanager
def _time_limit(limit_s: float) -> Iterator[None]:
    def over(_: int, __: FrameType | None) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
