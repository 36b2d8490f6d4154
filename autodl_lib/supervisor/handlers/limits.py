"""limit: bytes a second, shown and changed while downloads run.

Runs as: the supervisor.  Talks to: the store, the runner; account names are looked up on a thread.
Invariants: a new limit is on disk before it counts.
"""

from __future__ import annotations

import dataclasses

from autodl_lib.contract.errors import InvalidParams, NotAllowed, WrongState
from autodl_lib.contract.replies.limits import Limits, TaskLimit
from autodl_lib.contract.requests.limits import Limit
from autodl_lib.contract.states import TaskState
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.store.rows import Deed, SetRates
from autodl_lib.store.transaction import Transaction
from autodl_lib.supervisor.handlers.context import Call
from autodl_lib.supervisor.scheduling.rate_limits import DAEMON


async def limit(call: Call, request: Limit) -> Limits:
    """Show limits, or change one."""
    if sum((bool(request.ids), request.daemon, request.user is not None)) > 1:
        raise InvalidParams("a limit is that of tasks, of a user, or of the daemon: one of them at a time")
    uid, name = await _whose(call, request.user)
    tasks = list(await call.visible_states(request.ids))
    if request.rate_bps is None:
        pass
    elif tasks:
        await _set_of_tasks(call, tasks, request.rate_bps)
    elif request.daemon:
        if not call.caller.is_admin:
            raise NotAllowed("only root and the members of the admin group change the limit of the daemon")
        await _set(call, DAEMON, SetRates(own_bps=request.rate_bps))
    elif request.user is not None:
        stored = call.service.limits.stored(uid)
        await _set(call, uid, dataclasses.replace(stored, ceiling_bps=request.rate_bps))
    else:
        stored = call.service.limits.stored(uid)
        await _set(call, uid, dataclasses.replace(stored, own_bps=request.rate_bps))
    limits = call.service.limits
    rates = call.service.store.read.limit_rates(tasks)
    return Limits(
        daemon_bps=limits.daemon_bps,
        user=name,
        user_bps=limits.user_bps(uid),
        own_bps=limits.stored(uid).own_bps,
        tasks=tuple(TaskLimit(id=task_id, limit_rate_bps=rates.get(task_id, 0)) for task_id in tasks),
    )


async def _whose(call: Call, name: str | None) -> tuple[Uid, str]:
    if name is None:
        return call.caller.uid, call.caller.name
    return await call.uid_of(name), name


async def _set(call: Call, uid: Uid, rates: SetRates) -> None:
    what = f"{rates.own_bps} B/s, by an administrator {rates.ceiling_bps} B/s"

    def run(transaction: Transaction) -> None:
        transaction.set_rates(uid, rates)
        transaction.record(Deed(event="limit", owner_uid=uid, detail=what), call.caller.actor)

    await call.service.store.write(run)
    call.log_change("limit", detail=f"{'the daemon' if uid == DAEMON else f'uid {uid}'}, {what}")
    call.service.limits.set(uid, rates)
    call.service.pool.allotments.rates.limits_changed()
    call.service.runner.changed()


async def _set_of_tasks(call: Call, tasks: list[TaskId], rate_bps: int) -> None:
    def run(transaction: Transaction) -> None:
        states = {task_id: transaction.state_of(task_id, call.caller.sees) for task_id in tasks}
        for task_id, state in states.items():
            if state is TaskState.FINISHED:
                raise WrongState(f"task {task_id} is finished, so there is nothing to limit")
        for task_id, state in states.items():
            transaction.set_limit_rate(task_id, rate_bps)
            owner = transaction.owner_of(task_id)
            deed = Deed(event="limit", owner_uid=owner, detail=f"{rate_bps} B/s", task_id=task_id, state=state)
            transaction.record(deed, call.caller.actor)

    await call.service.store.write(run)
    call.log_change("limit", tasks, f"{rate_bps} B/s")
    pool = call.service.pool
    for task_id in tasks:
        lease = pool.leases.of_task(task_id)
        if lease is not None:
            pool.allotments.rates.set_task_limit(lease.id, rate_bps)
    call.service.runner.changed()
