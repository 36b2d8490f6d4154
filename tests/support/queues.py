"""Stores and tasks for tests that need no daemon."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autodl_lib.contract.task import OnConflict, Uid
from autodl_lib.store.rows import NewTask
from autodl_lib.store.store import Store


@contextlib.contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """Open a queue on the running loop."""
    store = Store(path)
    try:
        yield store
    finally:
        store.close()


def new_task(**changes: Any) -> NewTask:
    """Make a task to queue."""
    values: dict[str, Any] = {
        "uid": Uid(1000),
        "owner": "alice",
        "url": "http://host/file",
        "host": "host:80",
        "dir": "/tmp",
        "output": None,
        "headers": (),
        "limit_rate_bps": 0,
        "on_conflict": OnConflict.RENAME,
        "priority": 0,
        "paused": False,
    }
    return NewTask(**{**values, **changes})
