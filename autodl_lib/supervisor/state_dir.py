"""The folder that holds the queue: made, checked, and locked for one daemon.

Runs as: the supervisor.  Talks to: its own folder alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import signal
import stat
import time
from pathlib import Path

from autodl_lib.contract.errors import AlreadyRunning, BadSettings

DATABASE = "queue.db"
LOCK = "daemon.lock"


_WAIT_STEP_S = 0.05
_UNREACHABLE_S = 3.0
"""A daemon without a socket for so long is not just beginning: nobody can reach it."""


def claim_state_dir(path: Path, socket_path: Path, wait_s: float = 0.0) -> int:
    """Make the folder if need be, check that it is ours alone, lock it, and return the lock's descriptor.

    The lock file names the daemon's socket and process, for whoever is refused. `wait_s` seconds are given to a daemon
    that is just stopping: one that still answers on its socket is not waited for. One whose socket was removed, as a
    logout does with all of $XDG_RUNTIME_DIR, is asked to stop: its queue goes on here.

    Raises: AlreadyRunning, BadSettings.
    """
    try:
        _make(path)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise BadSettings(f"{path} is no folder; name another one with --state-dir")
        if found.st_uid != os.geteuid():
            raise BadSettings(f"{path} belongs to another user; name another folder with --state-dir")
        if found.st_mode & 0o022:
            raise BadSettings(f"{path} can be written by other users; run: chmod 700 {path}")
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise BadSettings(f"can't use the state folder {path}: {error.strerror}") from None
    began_mono = time.monotonic()
    is_asked = False
    while not _lock(lock):
        other, _, pid = os.fsdecode(os.pread(lock, 4096, 0)).strip().partition("\n")
        waited_s = time.monotonic() - began_mono
        if waited_s >= wait_s or (other and os.path.exists(other) and other != str(socket_path)):
            os.close(lock)
            raise AlreadyRunning(f"another daemon uses {path}; its socket is {other or 'unknown'}")
        if not is_asked and waited_s >= _UNREACHABLE_S and pid.isdecimal() and not os.path.exists(other):
            is_asked = _ask_to_stop(int(pid), lock)
        time.sleep(_WAIT_STEP_S)
    os.ftruncate(lock, 0)
    os.pwrite(lock, os.fsencode(socket_path) + b"\n%d\n" % os.getpid(), 0)
    return lock


def _make(path: Path) -> None:
    """Make the folder and those above it, each of them safe from a power cut: a queue in a lost folder is lost.

    Raises: OSError.
    """
    missing = list(itertools.takewhile(lambda folder: not folder.exists(), (path, *path.parents)))
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True, mode=0o700 if folder == path else 0o777)
        parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def _ask_to_stop(pid: int, lock: int) -> bool:
    """Ask a process to stop, if it has the lock file open: the number may be that of another machine's process."""
    ours = os.fstat(lock)
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            files = [os.stat(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
            if any(os.path.samestat(file, ours) for file in files):
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
                return True
        finally:
            os.close(pidfd)
    return False


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
