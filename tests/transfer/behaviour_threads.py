"""Runs the chosen cases of a module at the same time, since most of what they do is to wait for a server."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from behaviour_run import BehaviourWorker

_AT_ONCE = 12

Runs = dict[str, Future[None]]


class Workers:
    """A worker for each thread, which has many cases, one after the other; one that failed a case has no other."""

    def __init__(self) -> None:
        self._mine = threading.local()
        self._all: list[BehaviourWorker] = []

    @contextlib.contextmanager
    def one(self) -> Iterator[BehaviourWorker]:
        """Lend this thread's worker."""
        worker = getattr(self._mine, "worker", None)
        if worker is None:
            worker = BehaviourWorker()
            self._all.append(worker)
        self._mine.worker = None
        yield worker
        self._mine.worker = worker

    def retire(self) -> None:
        """End them all."""
        for worker in self._all:
            worker.retire()


def run_at_once(request: pytest.FixtureRequest, work: Callable[..., None]) -> Iterator[Runs]:
    """Yield the future of each test of this module that was chosen, by its name.

    `work` gets a Workers to borrow from, and the test's parameters by their names.
    """
    items: list[Any] = [item for item in request.session.items if item.path == request.path]
    workers = Workers()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield {
            item.name: pool.submit(work, workers, **item.callspec.params) for item in items if hasattr(item, "callspec")
        }
    workers.retire()
