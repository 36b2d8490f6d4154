"""explain: why a task is not running, in one sentence.

Runs as: the supervisor.  Talks to: the store's reader, the pool, the limits.
Security: a sentence tells of the owner's own tasks alone. Of others it says no more than that all places, or all
connections to a host, are taken; administrators are told numbers.
"""

from __future__ import annotations

import time

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.states import TaskState
from autodl_lib.contract.task import Task
from autodl_lib.contract.urls import check_url
from autodl_lib.contract.worker_states import LeasePhase
from autodl_lib.supervisor.daily_bytes import next_day_at
from autodl_lib.supervisor.handlers.context import Call
from autodl_lib.supervisor.scheduling.host_ledger import user_key

_WAITED_OUT: dict[str, str] = {
    FailureCode.NETWORK_DOWN: (
        "It waits for the network, which is down ({error}): it goes on when that is back, or is tried in {wait_s} s."
    ),
    FailureCode.DISK_FULL: "It waits for space on the disk ({error}): the next look is in {wait_s} s.",
}
"""What is not the task's fault, and passes without a try being counted."""


_HANGS = "Whoever writes to {dir} waits in the kernel and can't be ended, as with a disk that does not answer"


def _left_alone(call: Call, task: Task) -> str | None:
    """Say that a task's host has asked to be left alone, None where it has not."""
    host = check_url(task.url)
    left_s = call.service.runner.host_holds.left_s(task.uid, host, time.monotonic())
    if left_s <= 0:
        return None
    return f"It waits for {_shown(host)}, which asked to be left alone for {max(1, round(left_s))} s more."


def _shown(host: str) -> str:
    return host.removesuffix(":80").removesuffix(":443")


def _full_host(call: Call, task: Task) -> str | None:
    """Say that all connections to a task's host are in use, None where there are some."""
    host = check_url(task.url)
    shown_host = _shown(host)
    hosts = call.service.pool.allotments.hosts
    if hosts.used(host) < hosts.limit:
        return None
    if call.caller.is_admin:
        return (
            f"It waits for a connection to {shown_host}: {hosts.used(host)} are in use,"
            f" and {hosts.limit} are the most (connections_per_host)."
        )
    return f"It waits for a connection to {shown_host}: all {hosts.limit} are in use (connections_per_host)."


def reason_of(call: Call, task: Task) -> str:
    """Say in one sentence why a task is not running."""
    runner = call.service.runner
    match task.state:
        case TaskState.DOWNLOADING:
            if call.service.pool.hanging.has(task.id):
                return f"{_HANGS.format(dir=task.dir)}: it goes on when that answers."
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
            return f"The next try is in {wait_s} s: {why}."
        case TaskState.ENQUEUED:
            held, until = runner.holds.held(task.uid)
            if held:
                is_of_all = runner.holds.are_for_everybody()
                resume = "an administrator's autodl resume --all" if is_of_all else "autodl resume"
                when = f"until {resume}" if until is None else f"for {max(0, round(until - time.time()))} s more"
                return f"The queue is on hold {when}."
            if runner.is_spent(task.uid):
                most = call.service.users.of(task.uid).bytes_per_day
                left_s = round(next_day_at(time.time()) - time.time())
                return f"It waits for 0:00 UTC, in {left_s} s: all {most} bytes of today are taken (bytes_per_day)."
            if task.dir in call.service.pool.hanging.folders_of(task.uid):
                return f"{_HANGS.format(dir=task.dir)}: it begins when that answers."
            if call.service.pool.leases.of_task(task.id) is not None:
                return "It is just starting."
            return _why_waiting(call, task)


def _why_waiting(call: Call, task: Task) -> str:
    """Say what a task that could run waits for; of other users nothing is told, not even how many tasks they have."""
    has_place = call.service.pool.roster.busy_num < call.service.runner.max_tasks_num
    reason = _left_alone(call, task) or _own_limit(call, task)
    if reason is None and has_place:
        reason = _full_host(call, task)
    if reason is not None:
        return reason
    before = _waiting_before(call, task)
    ahead = f"{before} of your tasks come before it" if before else "it is the next of your tasks"
    if has_place:
        return f"It is about to start: {ahead}."
    if call.caller.is_admin:
        running = call.service.store.counters.of(None)[TaskState.DOWNLOADING]
        return f"It waits for a free place: {ahead}, {running} of {call.service.runner.max_tasks_num} places are taken."
    return f"It waits for a free place: {ahead}, and all places are taken."


def _waiting_before(call: Call, task: Task) -> int:
    """Return how many of their owner's tasks come before one, but for those that a worker is about to begin."""
    handed_out = sum(1 for lease in call.service.pool.leases.of_user(task.uid) if lease.phase is LeasePhase.ASSIGNED)
    return max(0, call.service.store.read.waiting_before(task) - handed_out)


def _own_limit(call: Call, task: Task) -> str | None:
    """Say which limit of its owner keeps a task waiting, None where none does."""
    limits = call.service.users.of(task.uid)
    before = _waiting_before(call, task)
    busy = call.service.pool.roster.busy_of(task.uid)
    if limits.running and busy >= limits.running:
        return (
            f"It waits for one of your tasks to end: {busy} are running, and {limits.running} are the most"
            f" that you may have (running); {before} come before it."
        )
    used = call.service.pool.allotments.hosts.used(user_key(task.uid))
    if limits.connections and used >= limits.connections:
        return (
            f"It waits for one of your connections to become free: {used} are in use, and {limits.connections} are"
            f" the most that you may have (connections); {before} of your tasks come before it."
        )
    return None
