"""Stores and tasks for tests that need no daemon."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from autodl_lib.contract.task import OnConflict, Task, Uid
from autodl_lib.store.listing import Selection
from autodl_lib.store.rows import NewTasks
from autodl_lib.store.store import Store


@contextlib.contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """Open a queue on the running loop."""
    store = Store(path)
    try:
        yield store
    finally:
        store.close()


def new_task(*, url: str = "http://host/file", host: str = "host:80", **changes: Any) -> NewTasks:
    """Make a task to queue."""
    return new_tasks([(url, host)], **changes)


def new_tasks(places: Sequence[tuple[str, str]], **changes: Any) -> NewTasks:
    """Make tasks to queue that differ in their URL and its host."""
    values: dict[str, Any] = {
        "uid": Uid(1000),
        "owner": "alice",
        "urls": tuple(url for url, _ in places),
        "hosts": tuple(host for _, host in places),
        "dir": "/tmp",
        "output": None,
        "headers": (),
        "limit_rate_bps": 0,
        "on_conflict": OnConflict.RENAME,
        "priority": 0,
        "paused": False,
    }
    return NewTasks(**{**values, **changes})


def all_tasks(store: Store, uid: Uid | None = None) -> list[Task]:
    """Return the first 1000 tasks of a user, or of all."""
    return store.read.page(Selection(users=None if uid is None else (uid,)), 0, 1000).tasks
