"""A task as the wire shows it, and the small types that name its parts.

Runs as: everyone.  Talks to: nobody; no I/O.
Invariants: field names are fixed points of the command line's `--json`; fields are added, never renamed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NewType

from autodl_lib.contract.light_dataclass import dataclass
from autodl_lib.contract.states import TaskState

TaskId = NewType("TaskId", int)
Uid = NewType("Uid", int)
Gid = NewType("Gid", int)

PART_SUFFIX = ".autodl-part"
CONTROL_SUFFIX = ".autodl-ctl"


def is_reserved_name(name: str) -> bool:
    """Tell whether a file of this name would be taken for the part or control file of a download, and replaced."""
    return name.startswith(".") and name.endswith((PART_SUFFIX, CONTROL_SUFFIX))


class OnConflict(StrEnum):
    """What to do when the final name is taken: save as NAME.1.EXT, fail the task, or replace the file."""

    RENAME = "rename"
    FAIL = "fail"
    OVERWRITE = "overwrite"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskError:
    """Why a task failed, or why it waits for another try; `code` is a FailureCode."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as its owner sees it. Times are UTC epoch seconds, null while they have not come."""

    id: TaskId
    url: str
    name: str | None
    dest: str | None
    dir: str
    state: TaskState
    owner: str
    uid: Uid
    priority: int
    bytes_done: int
    bytes_total: int | None
    speed_bps: int
    eta_s: int | None
    connections: int
    attempts: int
    http_status: int | None
    error: TaskError | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    retry_at: float | None
    label: str | None = None
