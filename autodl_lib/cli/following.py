"""Following tasks on behalf of `get`, `watch` and `wait`: feeds a display until all are settled.

Runs as: the caller.  Talks to: the daemon through client.follow, a display.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from autodl_lib.cli.display import Display
from autodl_lib.cli.session import Session, complain
from autodl_lib.cli.text import clean, plural
from autodl_lib.client.follow import Follower
from autodl_lib.contract.light_dataclass import dataclass
from autodl_lib.contract.requests.following import Watch
from autodl_lib.contract.states import SETTLED, TaskState
from autodl_lib.contract.task import Task

_IDS_PER_LOT = 10_000
_GRACE_S = 5.0
_MAX_COMPLAINTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to follow, and for how long; without ids, all that the caller has, without end.

    `ends`: what is not settled is not shown. `brief`: of what is finished only the path is told, and nothing shown.
    """

    ids: tuple[int, ...] | None
    all: bool = False
    progress: bool = True
    ends: bool = False
    brief: bool = False
    patient: bool = False
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The tasks as they were seen last, in the order asked, and the ids of those that are not settled.

    `saved`: the paths of the files of finished tasks that were followed briefly.
    """

    tasks: tuple[Task, ...]
    pending: frozenset[int]
    saved: Mapping[int, str]

    @property
    def unfinished(self) -> list[Task]:
        """Return those that are settled without success."""
        return [task for task in self.tasks if task.state in SETTLED and task.state is not TaskState.FINISHED]


def follow(session: Session, wanted: Wanted, display: Display) -> Outcome:
    """Show tasks until all wanted ones are settled, or the time is over.

    Raises: NoDaemon, NoSuchTask, NotAllowed, KeyboardInterrupt.
    """
    deadline = None if wanted.timeout_s is None else time.monotonic() + wanted.timeout_s
    if wanted.ids is None:
        return _follow_lot(session, wanted, display, deadline)
    # More than a request can name are followed one lot after the other; they are done in about that order.
    lots = [wanted.ids[i : i + _IDS_PER_LOT] for i in range(0, len(wanted.ids), _IDS_PER_LOT)]
    outcomes = [_follow_lot(session, replace(wanted, ids=lot), display, deadline) for lot in lots]
    return Outcome(
        tasks=tuple(task for outcome in outcomes for task in outcome.tasks),
        pending=frozenset().union(*(outcome.pending for outcome in outcomes)),
        saved={task_id: dest for outcome in outcomes for task_id, dest in outcome.saved.items()},
    )


def _follow_lot(session: Session, wanted: Wanted, display: Display, deadline: float | None) -> Outcome:
    request = Watch(ids=wanted.ids, progress=wanted.progress, all=wanted.all, ends=wanted.ends, brief=wanted.brief)
    tick_s = display.tick_s if deadline is None else min(display.tick_s, 0.1)
    latest: dict[int, Task] = {}
    saved: dict[int, str] = {}
    pending = set(wanted.ids or ())
    away = False
    follower = Follower(session.connect, request, tick_s=tick_s, patient=wanted.patient)
    for tasks in follower:
        if follower.away and not away:
            display.note("the daemon is away; waiting for it to come back")
        away = follower.away
        more = follower.take_saved()
        saved.update(more)
        pending.difference_update(more)
        for task in tasks:
            if wanted.ids is not None:
                latest[task.id] = task
                if task.state in SETTLED:
                    pending.discard(task.id)
            display.show(task)
        display.draw()
        if wanted.ids is not None and not pending:
            break
        if deadline is not None and _is_over(deadline, follower.complete):
            break
    seen = tuple(latest[i] for i in wanted.ids or () if i in latest)
    return Outcome(tasks=seen, pending=frozenset(pending), saved=saved)


def _is_over(deadline: float, complete: bool) -> bool:
    # Even with no time at all, tasks that are done already count; a daemon that doesn't say is not waited for.
    return time.monotonic() >= (deadline if complete else deadline + _GRACE_S)


def report_failures(outcome: Outcome) -> None:
    """Say on stderr which tasks ended without success, why, and what to do."""
    failed = outcome.unfinished
    for task in failed[:_MAX_COMPLAINTS]:
        if task.state is TaskState.FAILED:
            reason = (
                clean(f"{task.error.message} ({task.error.code})") if task.error is not None else "no reason is known"
            )
            complain(f"{task.id} failed: {reason}; `autodl retry {task.id}` tries again")
        else:
            complain(f"{task.id} was {task.state.value}")
    if len(failed) > _MAX_COMPLAINTS:
        complain(f"{plural(len(failed) - _MAX_COMPLAINTS, 'more task')} did not finish: see `autodl list -s failed`")


def numbers(ids: Sequence[int], most: int = 20) -> str:
    """Write ids for a message, or for the arguments of a command in it."""
    shown = " ".join(map(str, ids[:most]))
    return shown if len(ids) <= most else f"{shown} ..."
