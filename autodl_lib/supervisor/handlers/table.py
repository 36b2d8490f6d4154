"""Which function answers which request.

Runs as: the supervisor.
Invariants: every request of contract/requests/registry.py is here; a test compares.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from autodl_lib.contract.requests.adding import Add
from autodl_lib.contract.requests.following import Watch
from autodl_lib.contract.requests.limits import Limit, SetUrl
from autodl_lib.contract.requests.one_task import Explain, Log, Status
from autodl_lib.contract.requests.overviews import History, List, Stats
from autodl_lib.contract.requests.queue import Clear, MaxTasks, Pause, Resume
from autodl_lib.contract.requests.tasks import Cancel, Priority, Retry
from autodl_lib.supervisor.handlers import limits, questions, queueing, replacing, steering

Handler = Callable[[Any, Any], Awaitable[Any]]

HANDLERS: dict[type[Any], Handler] = {
    Add: queueing.add,
    Status: questions.status,
    List: questions.list_tasks,
    Watch: questions.watch,
    Log: questions.log,
    History: questions.history,
    Explain: questions.explain,
    Stats: questions.stats,
    Pause: steering.pause,
    Resume: steering.resume,
    Cancel: steering.cancel,
    Retry: steering.retry,
    Clear: steering.clear,
    MaxTasks: steering.max_tasks,
    Priority: steering.priority,
    Limit: limits.limit,
    SetUrl: replacing.set_url,
}
