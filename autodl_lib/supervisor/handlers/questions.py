"""status, list, log, stats, explain, watch: questions that change nothing.

Runs as: the supervisor.  Talks to: the store's reader, the pool's live figures.
"""

from __future__ import annotations

import dataclasses
import time

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.replies import Explanation, Statistics, TaskLog, TaskPage, Watching
from autodl_lib.contract.requests import Explain, List, Log, Stats, Status, Watch
from autodl_lib.contract.states import SETTLED, TaskState
from autodl_lib.contract.task import Task, TaskId
from autodl_lib.contract.urls import check_url, redact_url
from autodl_lib.supervisor.handlers.context import Call
from autodl_lib.supervisor.watchers import Subscription

_FIRST_PICTURE = 1000

_WAITED_OUT: dict[str, str] = {
    FailureCode.NETWORK_DOWN: (
        "It waits for the network, which is down ({error}): it goes on when that is back, or is tried in {wait_s} s."
    ),
    FailureCode.DISK_FULL: "It waits for space on the disk ({error}): the next look is in {wait_s} s.",
}
"""What is not the task's fault, and passes without a try being counted."""


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


def _closed_host(call: Call, task: Task) -> str | None:
    """Say why a task's host may not be asked now, None where it may."""
    host = check_url(task.url)
    shown_host = host.removesuffix(":80").removesuffix(":443")
    left_s = call.service.runner.host_holds.left_s(host, time.monotonic())
    if left_s > 0:
        return f"It waits for {shown_host}, which asked to be left alone for {max(1, round(left_s))} s more."
    hosts = call.service.pool.allotments.hosts
    if hosts.used(host) < hosts.limit:
        return None
    return (
        f"It waits for a connection to {shown_host}: {hosts.used(host)} are in use,"
        f" and {hosts.limit} are the most (connections_per_host)."
    )


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
            if task.error is not None and task.error.code in _WAITED_OUT:
                return _WAITED_OUT[task.error.code].format(error=task.error.message, wait_s=wait_s)
            why = task.error.message if task.error else "the last try failed"
            return f"The next try is in {wait_s} s, since {why}."
        case TaskState.ENQUEUED:
            held, until = runner.held(task.uid)
            if held:
                when = "until autodl resume" if until is None else f"for {max(0, round(until - time.time()))} s more"
                return f"The queue is on hold {when}."
            if call.service.pool.lease_of(task.id) is not None:
                return "It is just starting."
            reason = _closed_host(call, task)
            if reason is not None:
                return reason
            before = call.service.store.read.waiting_before(task)
            running = call.service.store.counters.of(None)[TaskState.DOWNLOADING]
            places = f"{running} of {runner.max_tasks_num} places are taken"
            return f"It waits for a free place: {before} of your tasks come before it, {places}."
