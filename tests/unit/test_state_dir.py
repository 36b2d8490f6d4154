"""Whose the state folder is: what is asked to make way for a new daemon, and what is not."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autodl_lib.contract.errors import AlreadyRunning
from autodl_lib.supervisor import state_dir
from autodl_lib.supervisor.state_dir import LOCK, claim_state_dir

HOLD = """
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
os.write(lock, sys.argv[2].encode() + b"\\n" + (sys.argv[3] or str(os.getpid())).encode())
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_dir, "_UNREACHABLE_S", 0.0)


@contextmanager
def held(folder: Path, socket: Path, pid: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder, and says that it is of a number."""
    command = [sys.executable, "-c", HOLD, str(folder / LOCK), str(socket), pid]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_daemon_that_nobody_can_reach_makes_way(tmp_path: Path) -> None:
    with held(tmp_path, tmp_path / "gone.sock") as other:
        lock = claim_state_dir(tmp_path, tmp_path / "new.sock", wait_s=30)
        os.close(lock)
        assert other.wait(30) == -15


def test_a_daemon_that_has_its_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "there.sock").touch()
    with held(tmp_path, tmp_path / "there.sock") as other:
        with pytest.raises(AlreadyRunning, match=r"there\.sock"):
            claim_state_dir(tmp_path, tmp_path / "new.sock", wait_s=30)
        assert other.poll() is None


def test_a_process_that_does_not_hold_the_folder_is_never_asked_to_stop(tmp_path: Path) -> None:
    """The folder may be shared with other machines, whose processes have other numbers."""
    with subprocess.Popen(["sleep", "1000"]) as innocent:
        with held(tmp_path, tmp_path / "gone.sock", str(innocent.pid)), pytest.raises(AlreadyRunning):
            claim_state_dir(tmp_path, tmp_path / "new.sock", wait_s=0.3)
        assert innocent.poll() is None
        innocent.kill()


def test_who_is_not_to_wait_asks_nobody(tmp_path: Path) -> None:
    with held(tmp_path, tmp_path / "gone.sock") as other:
        with pytest.raises(AlreadyRunning):
            claim_state_dir(tmp_path, tmp_path / "new.sock")
        with open(tmp_path / LOCK) as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert other.poll() is None
