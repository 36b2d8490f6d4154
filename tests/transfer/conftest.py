"""A misbehaving server and a worker for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.misbehaving_server import MisbehavingServer
from worker_harness import WorkerHarness


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    """A server of ours on loopback."""
    with MisbehavingServer() as running:
        yield running


@pytest.fixture
def start_worker() -> Iterator[Callable[..., WorkerHarness]]:
    """Start workers with settings of a test's own; they are retired after it."""
    started: list[WorkerHarness] = []

    def start(**settings: object) -> WorkerHarness:
        harness = WorkerHarness(**settings)
        started.append(harness)
        return harness

    yield start
    for harness in started:
        harness.retire()


@pytest.fixture
def worker(start_worker: Callable[..., WorkerHarness]) -> WorkerHarness:
    """A worker with usual settings."""
    return start_worker()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty destination."""
    path = tmp_path / "downloads"
    path.mkdir()
    return path
