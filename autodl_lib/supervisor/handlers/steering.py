"""pause, resume, cancel, retry, clear, priority, max_tasks: what changes the course of tasks.

Runs as: the supervisor.  Talks to: the store, the pool.
Invariants: all tasks named are checked before any is changed. A task that a worker has is changed by
asking the worker to let go of it; the reply waits for that, for some seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from autodl_lib.contract.errors import InvalidParams, NotAllowed, WrongState
from autodl_lib.contract.replies.queue import Count, Hold, MaxTasksNum
from autodl_lib.contract.replies.tasks import Ids
from autodl_lib.contract.requests.queue import Clear, MaxTasks, Pause, Resume
from autodl_lib.contract.requests.tasks import Cancel, Priority, Retry
from autodl_lib.contract.states import TaskEvent, TaskState, Want, next_state
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.store.rows import Change, Clearing, Deed
from autodl_lib.store.transaction import Transaction
from autodl_lib.supervisor.handlers.context import Call
from autodl_lib.supervisor.runner import EVERYBODY
from autodl_lib.supervisor.set_number import keep_number

LET_GO_TIMEOUT_S = 10.0

_CLEARED_AT_ONCE = 2000

_WANT = {TaskEvent.PAUSE: Want.PAUSE, TaskEvent.CANCEL: Want.CANCEL}


async def pause(call: Call, request: Pause) -> Ids | Hold:
    """Hold a queue, or set tasks aside."""
    if request.ids:
        if request.seconds is not None:
            raise InvalidParams("pause some tasks, or the queue for some seconds: not both at once")
        return await _move(call, request.ids, TaskEvent.PAUSE)
    uid = call.scope(request.all)
    key = EVERYBODY if uid is None else uid
    until = None if request.seconds is None else time.time() + request.seconds
    lasting = "until resume" if request.seconds is None else f"for {request.seconds:g} s"

    def run(transaction: Transaction) -> None:
        transaction.hold(key, until)
        transaction.record(Deed(event="hold", owner_uid=key, detail=lasting), call.caller.actor)

    await call.service.store.write(run)
    call.service.runner.hold(key, until)
    call.log_change("hold", detail=f"{_whose(uid)}, {lasting}")
    return _hold(call, request.all)


async def resume(call: Call, request: Resume) -> Ids | Hold:
    """Lift a hold, or let tasks go on."""
    if request.ids:
        return await _move(call, request.ids, TaskEvent.RESUME)
    uid = call.scope(request.all)
    key = EVERYBODY if uid is None else uid

    def run(transaction: Transaction) -> None:
        transaction.lift_hold(key)
        transaction.record(Deed(event="lift_hold", owner_uid=key, detail=""), call.caller.actor)

    await call.service.store.write(run)
    call.service.runner.lift_hold(key)
    call.log_change("lift_hold", detail=_whose(uid))
    return _hold(call, request.all)


async def cancel(call: Call, request: Cancel) -> Ids:
    """Stop tasks for good."""
    return await _move(call, request.ids, TaskEvent.CANCEL)


async def retry(call: Call, request: Retry) -> Ids:
    """Queue settled tasks again."""
    return await _move(call, request.ids, TaskEvent.RETRY)


async def clear(call: Call, request: Clear) -> Count:
    """Drop what is enqueued: piece by piece, so that what others ask for gets in between."""
    uid = call.scope(request.all)
    service = call.service
    states = (TaskState.ENQUEUED, TaskState.RETRYING)
    users = [uid] if uid is not None else service.store.counters.users_with(states)
    leased = service.pool.leases.tasks()
    service.runner.clearing.update(users)
    try:
        count = sum([await _clear(call, user, leased) for user in users])
    finally:
        service.runner.clearing.subtract(users)
        service.runner.changed()
    halted = []
    for task_id in leased:
        lease = service.pool.leases.of_task(task_id)
        task = service.store.read.task(task_id)
        if lease is None or task is None or lease.uid not in users or lease.outcome is not None:
            continue
        if task.state is TaskState.ENQUEUED:
            lease.actor = call.caller.actor
            service.pool.halt(lease, TaskEvent.CLEAR)
            halted.append(lease)
    await let_go([lease.ended for lease in halted])
    for lease in halted:
        task = service.store.read.task(lease.task_id)
        count += task is not None and task.state is TaskState.CLEARED
    call.log_change("clear", detail=f"{_whose(uid)}, {count} tasks")
    return Count(cleared=count)


async def _clear(call: Call, uid: Uid, leased: set[TaskId]) -> int:
    """Drop a user's tasks that are there now."""
    store = call.service.store
    last = await store.write(lambda transaction: transaction.last_clearable(uid))
    scope = Clearing(last=last, leased=leased, limit=_CLEARED_AT_ONCE)
    count = 0
    while cleared := await store.write(lambda transaction: transaction.clear(uid, scope, call.caller.actor)):
        count += cleared
    return count


async def max_tasks(call: Call, request: MaxTasks) -> MaxTasksNum:
    """Show or change how many tasks may run at once."""
    if request.max_tasks_num is not None:
        if not call.caller.is_admin:
            raise NotAllowed("only root and the members of the admin group change the number of tasks")
        number = request.max_tasks_num

        def run(transaction: Transaction) -> None:
            keep_number(transaction, number, call.service.settings.max_tasks_num)
            transaction.record(Deed(event="max_tasks", owner_uid=EVERYBODY, detail=str(number)), call.caller.actor)

        await call.service.store.write(run)
        call.service.runner.set_max_tasks(number)
        call.log_change("max_tasks", detail=str(number))
    return MaxTasksNum(max_tasks_num=call.service.runner.max_tasks_num)


async def priority(call: Call, request: Priority) -> Ids:
    """Change a task's priority."""
    task = call.visible(TaskId(request.id))
    actor = call.caller.actor
    await call.service.store.write(lambda transaction: transaction.set_priority(task.id, request.priority, actor))
    call.service.runner.changed()
    call.log_change("priority", [task.id], str(request.priority))
    return Ids(ids=(task.id,))


async def _move(call: Call, ids: Sequence[int], event: TaskEvent) -> Ids:
    """Take tasks along an event, all or none; those that workers have follow when let go."""
    wanted = [TaskId(task_id) for task_id in dict.fromkeys(ids)]
    pool = call.service.pool
    waits: dict[TaskId, asyncio.Event] = {}
    remaining = wanted
    while remaining:
        at_workers = await call.service.store.write(_mover(call, remaining, event))
        remaining = []
        for task_id in at_workers:
            lease = pool.leases.of_task(task_id)
            if lease is None:
                remaining.append(task_id)  # the worker let go of it meanwhile
            else:
                lease.actor = call.caller.actor
                pool.halt(lease, event)
                waits[task_id] = lease.ended
    call.log_change(event, wanted)
    await let_go(list(waits.values()))
    for task_id in waits:
        task = call.service.store.read.task(task_id)
        if task is not None and task.state is TaskState.FINISHED:
            raise WrongState(_refusal(task_id, task.state, event))
    return Ids(ids=tuple(wanted))


def _mover(call: Call, wanted: list[TaskId], event: TaskEvent) -> Callable[[Transaction], list[TaskId]]:
    """Return what moves tasks in a transaction, and returns those that a worker must let go of first."""
    pool = call.service.pool

    def run(transaction: Transaction) -> list[TaskId]:
        for task_id, state in transaction.states_of(wanted, call.caller.sees).items():
            if next_state(state, event) is None:
                raise WrongState(_refusal(task_id, state, event))
        at_workers = {task_id for task_id in wanted if event in _WANT and pool.leases.of_task(task_id) is not None}
        for task_id in at_workers:
            transaction.want(task_id, _WANT[event])
        free = [task_id for task_id in wanted if task_id not in at_workers]
        transaction.apply_all(free, Change(event=event, actor=call.caller.actor))
        return list(at_workers)

    return run


async def let_go(waits: list[asyncio.Event]) -> None:
    """Wait, for some seconds at most, until workers have let go of assignments."""
    if waits:
        try:
            async with asyncio.timeout(LET_GO_TIMEOUT_S):
                for wait in waits:
                    await wait.wait()
        except TimeoutError:
            pass  # the wish is recorded; it comes true when the worker is gone


def _whose(uid: Uid | None) -> str:
    return "of all users" if uid is None else "their own"


def _hold(call: Call, everybody: bool) -> Hold:
    held, until = call.service.runner.held(EVERYBODY if everybody else call.caller.uid)
    counters = call.service.store.counters
    uid = None if everybody else call.caller.uid
    return Hold(held=held, until=until, paused_tasks=counters.of(uid)[TaskState.PAUSED])


def _refusal(task_id: TaskId, state: TaskState, event: TaskEvent) -> str:
    hints = {
        (TaskState.PAUSED, TaskEvent.RETRY): f"autodl resume --id {task_id} lets it go on",
        (TaskState.FAILED, TaskEvent.RESUME): f"autodl retry {task_id} queues it again",
        (TaskState.CANCELLED, TaskEvent.RESUME): f"autodl retry {task_id} queues it again",
        (TaskState.CLEARED, TaskEvent.RESUME): f"autodl retry {task_id} queues it again",
        (TaskState.FINISHED, TaskEvent.RETRY): "add its URL again to download it once more",
    }
    hint = hints.get((state, event))
    return f"task {task_id} is {state}, so there is nothing to {event}" + (f"; {hint}" if hint else "")
