"""Which function answers which request.

Runs as: the supervisor.
Invariants: every request of contract/requests.py is here; a test compares.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from autodl_lib.contract import requests
from autodl_lib.supervisor.handlers import limits, questions, queueing, replacing, steering

Handler = Callable[[Any, Any], Awaitable[Any]]

HANDLERS: dict[type[Any], Handler] = {
    requests.Add: queueing.add,
    requests.Status: questions.status,
    requests.List: questions.list_tasks,
    requests.Watch: questions.watch,
    requests.Log: questions.log,
    requests.History: questions.history,
    requests.Explain: questions.explain,
    requests.Stats: questions.stats,
    requests.Pause: steering.pause,
    requests.Resume: steering.resume,
    requests.Cancel: steering.cancel,
    requests.Retry: steering.retry,
    requests.Clear: steering.clear,
    requests.MaxTasks: steering.max_tasks,
    requests.Priority: steering.priority,
    requests.Limit: limits.limit,
    requests.SetUrl: replacing.set_url,
}
