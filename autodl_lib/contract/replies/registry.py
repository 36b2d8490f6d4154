"""All replies.

Runs as: what makes the manual.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from autodl_lib.contract.replies.greeting import Greeting
from autodl_lib.contract.replies.limits import Limits, UrlSet
from autodl_lib.contract.replies.queue import Count, Hold, MaxTasksNum, Statistics
from autodl_lib.contract.replies.records import EventPage, Explanation, HistoryEntry, TaskLog
from autodl_lib.contract.replies.tasks import Ids, Saved, TaskPage, Watching
from autodl_lib.contract.task import Task

Reply = (
    Greeting
    | Ids
    | Task
    | TaskPage
    | Watching
    | Saved
    | TaskLog
    | HistoryEntry
    | EventPage
    | Explanation
    | Hold
    | Count
    | Statistics
    | MaxTasksNum
    | Limits
    | UrlSet
)
