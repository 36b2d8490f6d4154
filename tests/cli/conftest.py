"""The fixtures of the command line's tests: a folder of one's own with a socket in it, a daemon, a client."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_daemon import FakeDaemon, Run, autodl


@pytest.fixture
def home() -> Iterator[Path]:
    # Not tmp_path: that is often too long for a socket.
    with tempfile.TemporaryDirectory(prefix="autodl-cli-") as folder:
        yield Path(folder).resolve()


@pytest.fixture
def daemon(home: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(home / "d.sock") as fake:
        yield fake


@pytest.fixture
def run(home: Path, daemon: FakeDaemon) -> Run:
    def run_in_home(*arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
        return autodl(*arguments, cwd=home, **{"AUTODL_SOCKET": str(daemon.path), **options})

    return run_in_home
