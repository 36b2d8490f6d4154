"""Locks on part files: who uses one now.

Runs as: the task's owner.  Talks to: the destination folder.
Invariants: no symlink is followed, and nothing but a regular file of this user is kept open.
How it fails: OSError.
Source: flock(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from autodl_lib.worker.files.control_file import MAY_PASS
from autodl_lib.worker.files.folder import Folder

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


def open_and_lock(folder: Folder, name: str) -> int | None:
    """Open an existing regular file of ours and lock it; None when it is something else or in use.

    Raises: OSError when that can't be told now.
    """
    try:
        fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder.fd)
    except OSError as error:
        if error.errno in MAY_PASS:
            raise
        return None
    is_kept = False
    try:
        status = os.fstat(fd)
        ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        is_kept = ours and lock(fd, unsupported=False) and is_named(folder, name, status)
        return fd if is_kept else None
    finally:
        if not is_kept:
            os.close(fd)


def is_in_use(folder: Folder, name: str) -> bool:
    """Tell whether a worker of this user has the part file open now."""
    try:
        fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder.fd)
    except OSError as error:
        if error.errno in MAY_PASS:
            raise
        return False
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode) and not lock(fd, unsupported=True)
    finally:
        os.close(fd)


def lock(fd: int, *, unsupported: bool) -> bool:
    """Lock a file; `unsupported` is the answer where there are no locks.

    Raises: OSError.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return unsupported
    return True


def is_named(folder: Folder, name: str, status: os.stat_result) -> bool:
    """Tell whether a name still refers to the file that was locked, of which this is the status."""
    try:
        named = os.stat(name, dir_fd=folder.fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, status)
