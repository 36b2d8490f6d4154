"""All requests.

Runs as: the supervisor, and what makes the manual.  Talks to: nobody; no I/O.
Strict decoding, authorisation, docs/PROTOCOL.md and the manual derive from here.
Invariants: REQUESTS is the explicit list; a method that is not in it does not exist.
"""

from __future__ import annotations

from autodl_lib.contract.requests.adding import Add
from autodl_lib.contract.requests.following import Watch
from autodl_lib.contract.requests.limits import Limit, SetUrl
from autodl_lib.contract.requests.one_task import Explain, Log, Status
from autodl_lib.contract.requests.overviews import History, List, Stats
from autodl_lib.contract.requests.queue import Clear, MaxTasks, Pause, Resume
from autodl_lib.contract.requests.tasks import Cancel, Priority, Retry

Request = (
    Add
    | Status
    | List
    | Watch
    | Log
    | History
    | Explain
    | Pause
    | Resume
    | Cancel
    | Retry
    | Clear
    | Stats
    | MaxTasks
    | Priority
    | Limit
    | SetUrl
)

REQUESTS: tuple[type[Request], ...] = (
    Add,
    Status,
    List,
    Watch,
    Log,
    History,
    Explain,
    Pause,
    Resume,
    Cancel,
    Retry,
    Clear,
    Stats,
    MaxTasks,
    Priority,
    Limit,
    SetUrl,
)

REQUEST_BY_METHOD: dict[str, type[Request]] = {request.method: request for request in REQUESTS}
