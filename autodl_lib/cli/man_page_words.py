"""What states, events, failures and exit statuses mean, in a sentence each: the manual's words for bare codes.

Runs as: a developer.  Talks to: nobody; no I/O.
Invariants: every code that contract/ declares has its words; a test looks.
"""

from __future__ import annotations

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.requests.terms import Access
from autodl_lib.contract.states import TaskEvent, TaskState

STATES: dict[TaskState, str] = {
    TaskState.ENQUEUED: "It waits for its turn; `autodl explain` says why it is not running.",
    TaskState.DOWNLOADING: "A worker process of its owner has it.",
    TaskState.RETRYING: "It failed in a way that may pass, and is tried again by itself at `retry_at`.",
    TaskState.PAUSED: "Its owner set it aside; what has arrived is kept.",
    TaskState.FINISHED: "The whole file is on disk, checked, under its final name.",
    TaskState.FAILED: "It is not tried again by itself; `error` says why. What has arrived is kept for `autodl retry`.",
    TaskState.CANCELLED: "Its owner stopped it; what had arrived is removed.",
    TaskState.CLEARED: "It was dropped from the queue by `autodl clear`.",
}

EVENTS: dict[TaskEvent, str] = {
    TaskEvent.START: "a worker took it",
    TaskEvent.FINISH: "the file is in place",
    TaskEvent.FAIL: "a failure that is final",
    TaskEvent.POSTPONE: "a failure that may pass",
    TaskEvent.LOSE: "its worker was killed or crashed",
    TaskEvent.INTERRUPT: "the daemon stopped or took it back",
    TaskEvent.DUE: "the wait for the next try is over",
    TaskEvent.PAUSE: "`autodl pause --id`",
    TaskEvent.RESUME: "`autodl resume --id`",
    TaskEvent.CANCEL: "`autodl cancel`",
    TaskEvent.CLEAR: "`autodl clear`",
    TaskEvent.RETRY: "`autodl retry`",
    TaskEvent.SET_URL: "`autodl set-url`",
}

FAILURES: dict[FailureCode, str] = {
    FailureCode.HTTP_ERROR: "The server answered with a status that no second try changes, such as 405.",
    FailureCode.NAME_RESOLUTION: "The host's name was not found.",
    FailureCode.CONNECT: "No connection could be made.",
    FailureCode.TIMEOUT: "Connecting took longer than `transfer.connect_timeout_s`.",
    FailureCode.STALLED: "No byte came for `transfer.stall_timeout_s`.",
    FailureCode.NETWORK: "The connection broke.",
    FailureCode.TRUNCATED: "The server ended before the file did.",
    FailureCode.SERVER_BUSY: "The server asked to come back later (408, 425, 429, 5xx but 501 and 505); its "
    "Retry-After is honoured.",
    FailureCode.REMOTE_CHANGED: "The remote file changed; what had arrived was thrown away.",
    FailureCode.CHECKSUM: "The file is not what `--checksum`, a Metalink file or the server said; it was not saved.",
    FailureCode.NETWORK_DOWN: "This machine has no network; that is waited out and not counted as a try.",
    FailureCode.TLS: "The server could not prove who it is, or speaks no common TLS.",
    FailureCode.AUTHENTICATION: "The server wants a login, or refused the one given (401, 403, 407).",
    FailureCode.REMOTE_MISSING: "There is no such file on the server (404, 410, FTP 550).",
    FailureCode.REDIRECT: "Too many redirects, or one to a scheme that is not spoken.",
    FailureCode.PROTOCOL: "The server's answers make no sense, or do not fit each other.",
    FailureCode.BAD_URL: "The URL can't be downloaded.",
    FailureCode.CONFLICT: "The name is taken, and `--on-conflict fail` was asked for.",
    FailureCode.PERMISSION: "The owner of the task may not write there.",
    FailureCode.FOLDER: "The folder is not there and can't be made, or is no folder.",
    FailureCode.DISK_FULL: "The disk or a quota is full; that is waited out and not counted as a try.",
    FailureCode.DISK: "Writing to the disk failed.",
    FailureCode.RESOURCES: "The machine has no memory, open files or locks left for this, for now.",
    FailureCode.FILE_BUSY: "Another download writes the same part file.",
    FailureCode.WORKER_LOST: "The worker process was killed or crashed.",
    FailureCode.ACCOUNT: "The owner's account is gone or can't be used.",
    FailureCode.INTERNAL: "A defect of autodl; please report it.",
}

EXIT_STATUSES: dict[int, str] = {
    0: "Done.",
    1: "The operation failed. For `get` and `wait`: a task did not finish.",
    2: "Usage: an unknown option, a wrong value, a wrong setting.",
    3: "No daemon answers, or one that can't be talked to.",
    4: "No such task, or it is another user's.",
    5: "Not allowed.",
    6: "Timed out.",
    130: "Interrupted by Ctrl-C. Downloads go on.",
    141: "Nobody read the output.",
}

ACCESS: dict[Access, str] = {
    Access.ANYONE: "any user whom the daemon serves",
    Access.OWNER: "the owner of the tasks, and administrators",
    Access.ADMIN: "administrators",
}
