"""Assignments for tests of what a worker makes of one, without a supervisor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autodl_lib.contract.task import OnConflict, TaskId
from autodl_lib.contract.worker_messages import Assign


def assignment(url: str, folder: Path | str, *, lease: str = "l", **fields: Any) -> Assign:
    """Return a plain task's first assignment, but for `fields`."""
    plain = {
        "task_id": TaskId(1),
        "tag": "db:1",
        "output": None,
        "headers": (),
        "limit_rate_bps": 0,
        "on_conflict": OnConflict.RENAME,
        "name": None,
        "part": None,
        "identity": None,
    }
    return Assign(lease=lease, url=url, dir=str(folder), **{**plain, **fields})
