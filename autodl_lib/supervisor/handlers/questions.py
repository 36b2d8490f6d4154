"""status, list, log, stats, explain, watch: questions that change nothing.

Runs as: the supervisor.  Talks to: the store's reader, the pool's live figures.
"""

from __future__ import annotations

import dataclasses
import time

from autodl_lib.contract.replies import Explanation, Statistics, TaskLog, TaskPage, Watching
from autodl_lib.contract.requests import Explain, List, Log, Stats, Status, Watch
from autodl_lib.contract.states import SETTLED, TaskState
from autodl_lib.contract.task import Task, TaskId
from autodl_lib.contract.urls import redact_url
from autodl_lib.supervisor.handlers.context import Call
from autodl_lib.supervisor.watchers import Subscription

_FIRST_PICTURE = 1000


async def status(call: Call, request: Status) -> Task:
    """Show one task."""
    return shown(call, call.visible(TaskId(request.id)))


async def list_tasks(call: Call, request: List) -> TaskPage:
    """Show a page of tasks."""
    uid = call.scope(request.all)
    service = call.service
    tasks = service.store.read.page(uid, request.states, request.after, request.limit)
    page = tuple(shown(call, service.with_live_figures(task)) for task in tasks)
    return TaskPage(tasks=page, next=page[-1].id if len(page) == request.limit else None)


async def log(call: Call, request: Log) -> TaskLog:
    """Show a task's history."""
    task = call.visible(TaskId(request.id))
    return TaskLog(events=call.service.store.read.log(task.id))


async def stats(call: Call, request: Stats) -> Statistics:
    """Count tasks, answers and bytes."""
    uid = call.scope(request.all)
    service = call.service
    responses = service.store.read.responses(uid)
    leases = [(service.pool.lease_of(task_id), live) for task_id, live in service.pool.live.items()]
    speed = sum(live.speed_bps for lease, live in leases if lease is not None and uid in (None, lease.uid))
    held, until = service.runner.held(call.caller.uid)
    return Statistics(
        tasks={state.value: count for state, count in service.store.counters.of(uid).items()},
        responses={**responses, "total": sum(responses.values())},
        bytes=service.store.read.traffic(uid),
        speed_bps=speed,
        max_tasks_num=service.runner.max_tasks_num,
        held=held,
        held_until=until,
    )


async def watch(call: Call, request: Watch) -> Watching:
    """Show tasks as they are, then whenever they change."""
    if request.ids is not None:
        tasks = [call.visible(TaskId(task_id)) for task_id in dict.fromkeys(request.ids)]
        ids: set[TaskId] | None = {task.id for task in tasks}
        uid = None
    else:
        uid = call.scope(request.all)
        ids = None
        # Those that move come first; of a long queue, its head: a follower counts the rest by `stats`.
        store = call.service.store
        page = store.read.page(uid, [TaskState.DOWNLOADING, TaskState.RETRYING], 0, _FIRST_PICTURE)
        page += store.read.page(uid, [TaskState.ENQUEUED, TaskState.PAUSED], 0, _FIRST_PICTURE)
        tasks = [call.service.with_live_figures(task) for task in page]

    def send(changed: list[Task]) -> None:
        call.send_tasks([shown(call, task) for task in changed])

    send(tasks)
    call.subscribe(Subscription(ids=ids, uid=uid, progress=request.progress, send=send, writable=call.writable))
    return Watching(tasks=len(tasks), settled=sum(1 for task in tasks if task.state in SETTLED))


async def explain(call: Call, request: Explain) -> Explanation:
    """Say why a task is not running."""
    task = call.visible(TaskId(request.id))
    return Explanation(id=task.id, reason=_reason(call, task))


def shown(call: Call, task: Task) -> Task:
    """Return a task as the caller may see it: another user's without the secrets of its URL."""
    if task.uid == call.caller.uid:
        return task
    return dataclasses.replace(task, url=redact_url(task.url))


def _reason(call: Call, task: Task) -> str:
    runner = call.service.runner
    match task.state:
        case TaskState.DOWNLOADING:
            return "It is running."
        case TaskState.FINISHED:
            return f"It is finished: {task.dest}."
        case TaskState.FAILED:
            return f"It failed: {task.error.message if task.error else 'no reason is known'}; autodl retry {task.id}."
        case TaskState.CANCELLED | TaskState.CLEARED:
            return f"It was {task.state}; autodl retry {task.id} queues it again."
        case TaskState.PAUSED:
            return f"It is paused; autodl resume --id {task.id} lets it go on."
        case TaskState.RETRYING:
            wait_s = max(0, round((task.retry_at or 0) - time.time()))
            why = task.error.message if task.error else "the last try failed"
            return f"The next try is in {wait_s} s, since {why}."
        case TaskState.ENQUEUED:
            held, until = runner.held(task.uid)
            if held:
                when = "until autodl resume" if until is None else f"for {max(0, round(until - time.time()))} s more"
                return f"The queue is on hold {when}."
            if call.service.pool.lease_of(task.id) is not None:
                return "It is just starting."
            before = call.service.store.read.waiting_before(task)
            running = call.service.store.counters.of(None)[TaskState.DOWNLOADING]
            places = f"{running} of {runner.max_tasks_num} places are taken"
            return f"It waits for a free place: {before} of your tasks come before it, {places}."
