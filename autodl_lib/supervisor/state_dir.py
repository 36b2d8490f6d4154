"""The folder that holds the queue: made, checked, and locked for one daemon.

Runs as: the supervisor.  Talks to: its own folder alone.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from autodl_lib.contract.errors import AlreadyRunning, BadSettings

DATABASE = "queue.db"
LOCK = "daemon.lock"


def claim_state_dir(path: Path, socket_path: Path) -> int:
    """Make the folder if need be, check that it is ours alone, lock it, and return the lock's descriptor.

    The lock file names the daemon's socket, for whoever is refused.

    Raises: AlreadyRunning, BadSettings.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
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
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        other = os.pread(lock, 4096, 0).decode(errors="replace").strip()
        os.close(lock)
        raise AlreadyRunning(
            f"another daemon uses the state folder {path}; its socket is {other or 'unknown'}"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, os.fsencode(socket_path) + b"\n", 0)
    return lock
