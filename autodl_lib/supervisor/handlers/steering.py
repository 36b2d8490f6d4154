"""pause, resume, cancel, retry, clear, priority, max_tasks: what changes the course of tasks.

Runs as: the supervisor.  Talks to: the store, the pool.
Invariants: all tasks named are checked before any is changed. A task that a worker has is changed by
asking the worker to let go of it; the reply waits for that, for some seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial

from autodl_lib.contract.errors import InvalidParams, NotAllowed, WrongState
from autodl_lib.contract.replies.queue import Count, Hold, MaxTasksNum
from autodl_lib.contract.replies.tasks import Ids
from autodl_lib.contract.requests.queue import Clear, MaxTasks, Pause, Resume
from autodl_lib.contract.requests.tasks import Cancel, Priority, Retry
from autodl_lib.contract.states import SETTLED, TaskEvent, TaskState, Want, next_state
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.store.rows import Change, Clearing, Deed
from autodl_lib.store.transaction import Transaction
from autodl_lib.supervisor.handlers.context import Call
from autodl_lib.supervisor.queue_holds import EVERYBODY
from autodl_lib.supervisor.set_number import keep_number
from autodl_lib.supervisor.workers.worker_handle import Lease

LET_GO_TIMEOUT_S = 10.0

_CLEARED_AT_ONCE = 2000
_PIECE = 200
"""Tasks that are looked at in one go, or workers told of, some milliseconds."""

_WANT = {TaskEvent.PAUSE: Want.PAUSE, TaskEvent.CANCEL: Want.CANCEL}


async def pause(call: Call, request: Pause) -> Ids | Hold:
    """Hold a queue, or set tasks aside."""
    if request.ids:
        if request.seconds is not None:
            raise InvalidParams("pause some tasks, or the queue for some seconds: not both at once")
        _refuse_all(request.all)
        return await _move(call, request.ids, TaskEvent.PAUSE)
    uid = call.scope(request.all)
    key = EVERYBODY if uid is None else uid
    until = None if request.seconds is None else time.time() + request.seconds
    lasting = "until resume" if request.seconds is None else f"for {request.seconds:g} s"

    def run(transaction: Transaction) -> None:
        transaction.hold(key, until)
        transaction.record(Deed(event="hold", owner_uid=key, detail=lasting), call.caller.actor)

    await call.service.store.write(run)
    call.service.runner.holds.hold(key, until)
    await let_go(await _recall(call, uid))
    call.log_change("hold", detail=f"{_whose(uid)}, {lasting}")
    return _hold(call, request.all)


async def resume(call: Call, request: Resume) -> Ids | Hold:
    """Lift a hold, or let tasks go on."""
    if request.ids:
        _refuse_all(request.all)
        return await _move(call, request.ids, TaskEvent.RESUME)
    uid = call.scope(request.all)
    key = EVERYBODY if uid is None else uid

    def run(transaction: Transaction) -> None:
        transaction.lift_hold(key)
        transaction.record(Deed(event="lift_hold", owner_uid=key, detail=""), call.caller.actor)

    await call.service.store.write(run)
    call.service.runner.holds.lift(key)
    call.log_change("lift_hold", detail=_whose(uid))
    return _hold(call, request.all)


def _refuse_all(is_for_all: bool) -> None:
    if is_for_all:
        raise InvalidParams("name some tasks, or all users' queues: not both at once")


async def cancel(call: Call, request: Cancel) -> Ids:
    """Stop tasks for good."""
    return await _move(call, request.ids, TaskEvent.CANCEL)


async def retry(call: Call, request: Retry) -> Ids:
    """Queue settled tasks again, where their user may have so many; a host that asked to be left alone is asked."""
    uid, settled_num = call.caller.sees, 0
    async for piece in _pieces(call, [TaskId(task_id) for task_id in dict.fromkeys(request.ids)]):
        settled_num += sum(state in SETTLED for state in call.service.store.read.states(piece, uid).values())
    with call.service.room_for(uid, settled_num) if uid is not None else nullcontext():
        ids = await _move(call, request.ids, TaskEvent.RETRY)
    async for piece in _pieces(call, [TaskId(task_id) for task_id in ids.ids]):
        call.service.runner.ask_again(piece)
    return ids


async def clear(call: Call, request: Clear) -> Count:
    """Drop what is enqueued: piece by piece, so that what others ask for gets in between."""
    uid = call.scope(request.all)
    service = call.service
    dropped = (TaskState.ENQUEUED, TaskState.RETRYING)
    users = [uid] if uid is not None else service.store.counters.users_with(dropped)
    halted: list[TaskId] = []
    service.runner.holds.clearing.update(users)
    try:
        lasts = {user: await service.store.write(partial(Transaction.last_clearable, uid=user)) for user in users}
        count = sum([await _clear(call, user, last) for user, last in lasts.items()])
        waits = []
        async for piece in _pieces(call, list(service.pool.leases.tasks())):
            leases = _halt_waiting(call, users, service.store.read.states(piece))
            halted += [lease.task_id for lease in leases]
            waits += [lease.ended for lease in leases]
        await let_go(waits)
        async for piece in _pieces(call, halted):
            count += sum(1 for state in service.store.read.states(piece).values() if state is TaskState.CLEARED)
        # What workers have given back meanwhile, for a reason of their own, is in the queue again.
        count += sum([await _clear(call, user, last) for user, last in lasts.items()])
    finally:
        service.runner.holds.clearing.subtract(users)
        service.runner.changed()
    call.log_change("clear", detail=f"{_whose(uid)}, {count} tasks")
    return Count(cleared=count)


def _halt_waiting(call: Call, users: Sequence[Uid], states: Mapping[TaskId, TaskState]) -> list[Lease]:
    """Have workers let go of what they were handed ahead of those users' tasks."""
    pool = call.service.pool
    halted = []
    for task_id, state in states.items():
        lease = pool.leases.of_task(task_id)
        if lease is None or lease.uid not in users or lease.outcome is not None:
            continue
        if state is TaskState.ENQUEUED:
            lease.actor = call.caller.actor
            pool.halt(lease, TaskEvent.CLEAR)
            halted.append(lease)
    return halted


async def _clear(call: Call, uid: Uid, last: int) -> int:
    """Drop a user's tasks up to the number `last`, but for those that workers have at that moment."""
    leases = call.service.pool.leases

    def run(transaction: Transaction) -> int:
        scope = Clearing(last=last, leased=leases.tasks(), limit=_CLEARED_AT_ONCE)
        return transaction.clear(uid, scope, call.caller.actor)

    count = 0
    while cleared := await call.service.store.write(run):
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
    store = call.service.store
    at_workers = await store.write(_mover(call, wanted, event))
    call.log_change(event, wanted)
    followers = at_workers
    while at_workers:
        await let_go(await _halt(call, at_workers, event))
        # One that its worker was just letting go of, for a reason of its own, may be in the queue again.
        at_workers = await store.write(_mover(call, at_workers, event, is_first=False))
    async for piece in _pieces(call, followers):
        for task_id, state in store.read.states(piece).items():
            if state is TaskState.FINISHED:
                raise WrongState(_refusal(task_id, state, event))
    return Ids(ids=tuple(wanted))


async def _halt(call: Call, task_ids: list[TaskId], event: TaskEvent) -> list[asyncio.Event]:
    """Have workers let go of tasks; return what to wait for."""
    pool = call.service.pool
    waits = []
    async for piece in _pieces(call, task_ids):
        for lease in filter(None, map(pool.leases.of_task, piece)):
            lease.actor = call.caller.actor
            pool.halt(lease, event)
            waits.append(lease.ended)
    return waits


async def _recall(call: Call, uid: Uid | None) -> list[asyncio.Event]:
    """Have a user's workers, or everybody's, give back what they have not begun; return what to wait for."""
    pool = call.service.pool
    leases = pool.leases
    task_ids = list(leases.tasks()) if uid is None else [lease.task_id for lease in leases.of_user(uid)]
    waits = []
    async for piece in _pieces(call, task_ids):
        waits += pool.recall(filter(None, map(leases.of_task, piece)))
    return waits


async def _pieces(call: Call, task_ids: list[TaskId]) -> AsyncIterator[list[TaskId]]:
    """Yield some tasks at a time, so that others' questions get in between."""
    call.pace.begin()
    for start in range(0, len(task_ids), _PIECE):
        if start:
            await call.pace.next()
        yield task_ids[start : start + _PIECE]


def _mover(
    call: Call, wanted: list[TaskId], event: TaskEvent, *, is_first: bool = True
) -> Callable[[Transaction], list[TaskId]]:
    """Return what moves tasks in a transaction, and returns those that a worker must let go of first.

    All of them must be there and movable the first time; later, those that are move.
    """
    pool = call.service.pool

    def run(transaction: Transaction) -> list[TaskId]:
        look = transaction.states_of if is_first else transaction.known_states_of
        states = look(wanted, call.caller.sees)
        movable = [task_id for task_id, state in states.items() if next_state(state, event) is not None]
        if is_first and len(movable) < len(wanted):
            refused = next(task_id for task_id in wanted if next_state(states[task_id], event) is None)
            raise WrongState(_refusal(refused, states[refused], event))
        leases = {task_id: pool.leases.of_task(task_id) if event in _WANT else None for task_id in movable}
        transaction.apply_all(
            [task_id for task_id, lease in leases.items() if lease is None],
            Change(event=event, actor=call.caller.actor),
        )
        at_workers = [
            task_id for task_id, lease in leases.items() if lease is not None and (is_first or lease.outcome is None)
        ]
        for task_id in at_workers:
            transaction.want(task_id, _WANT[event])
        return at_workers

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
    held, until = call.service.runner.holds.held(EVERYBODY if everybody else call.caller.uid)
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
