"""One daemon for all tests of the wire: that it stands all of them is a part of what they show."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon


@pytest.fixture(scope="module")
def target() -> Iterator[Daemon]:
    """A daemon with one paused task; at the end the same process must still answer, without a defect in its log."""
    folder = Path(tempfile.mkdtemp(prefix="autodl-w-"))
    daemon = Daemon(folder).start()
    daemon.add("--paused", "http://127.0.0.1:1/x")
    first_pid = daemon.pid
    yield daemon
    assert daemon.process is not None
    assert (daemon.process.poll(), daemon.pid) == (None, first_pid), daemon.log_end()
    assert daemon.ok("status", "1", "--json")
    assert daemon.end_all() == []
    assert daemon.defects() == [], daemon.log_end()
    shutil.rmtree(folder)


@pytest.fixture
def fresh(place: Path) -> Iterator[Daemon]:
    """A daemon of the test's own, with one paused task."""
    daemon = Daemon(place).start()
    with daemon.connect() as wire:
        wire.call("add", urls=["http://127.0.0.1:1/x"], dir="/tmp", paused=True)
    yield daemon
    assert daemon.end_all() == []
    assert daemon.defects() == [], daemon.log_end()
