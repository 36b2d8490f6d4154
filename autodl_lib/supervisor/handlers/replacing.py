"""set_url: another URL for a task, whose bytes are kept.

Runs as: the supervisor.  Talks to: the store, the pool.
Invariants: the new URL is on disk before a worker is told to let go; whatever happens then, the task goes on
with it. No URL is written to the history: URLs carry tokens.
Security: a task's headers, logins and cookies go where its URL says, so that is for its owner to say, and for root,
who can read the queue anyway; not for other administrators, who must not learn them.
"""

from __future__ import annotations

from autodl_lib.contract.errors import NotAllowed, WrongState
from autodl_lib.contract.replies.limits import UrlSet
from autodl_lib.contract.requests.limits import SetUrl
from autodl_lib.contract.states import TaskEvent, TaskState, next_state
from autodl_lib.contract.task import TaskId
from autodl_lib.contract.urls import check_url
from autodl_lib.store.rows import Change
from autodl_lib.store.transaction import Transaction
from autodl_lib.supervisor.handlers.context import Call
from autodl_lib.supervisor.handlers.steering import let_go


async def set_url(call: Call, request: SetUrl) -> UrlSet:
    """Replace a task's URL."""
    task_id = TaskId(request.id)
    host = check_url(request.url)

    def run(transaction: Transaction) -> None:
        state = transaction.state_of(task_id, call.caller.sees)
        if call.caller.uid not in (0, transaction.owner_of(task_id)):
            raise NotAllowed(f"task {task_id} is another user's: only they and root may give it another URL")
        if next_state(state, TaskEvent.SET_URL) is None:
            raise WrongState(f"task {task_id} is {state}, so its URL stays; add the new one instead")
        detail = f"its URL was replaced, the host is {host}"
        change = Change(event=TaskEvent.SET_URL, actor=call.caller.actor, url=request.url, host=host, detail=detail)
        transaction.apply(task_id, change)

    await call.service.store.write(run)
    call.log_change("set_url", [task_id])
    lease = call.service.pool.leases.of_task(task_id)
    # One that was handed out since has the new URL already.
    if lease is not None and lease.outcome is None and lease.url != request.url:
        call.service.pool.halt(lease, TaskEvent.INTERRUPT)
        await let_go([lease.ended])
    task = call.visible(task_id)
    return UrlSet(id=task_id, state=task.state, next=_next(task_id, task.state))


def _next(task_id: TaskId, state: TaskState) -> str:
    match state:
        case TaskState.PAUSED:
            return f"autodl resume --id {task_id} lets it go on"
        case TaskState.FAILED:
            return f"autodl retry {task_id} lets it go on"
        case TaskState.FINISHED:
            return "it was finished just before"
        case _:
            return "it goes on by itself"
