"""Files of the owner that a transfer's options name: found, and seen to be readable before any byte is sent.

Runs as: the task's owner.  Talks to: the owner's file system, reading only.
Invariants: only regular files are opened, so a FIFO or a terminal can't hold the worker up.
How it fails: TaskFailed, which names the path as its owner wrote it.
Known limits: libcurl opens most of these files again itself, later.
"""

from __future__ import annotations

import os
import stat

from autodl_lib.contract.failures import FailureCode
from autodl_lib.worker.network.verdicts import TaskFailed

_MAX_TEXT_BYTES = 1024 * 1024


def readable_file(path: str, what: str) -> bytes:
    """Return where a file is, as libcurl takes it; `what` it is completes "could not read ...".

    Raises: TaskFailed, when its owner can't read it.
    """
    os.close(_open(path, what))
    return os.fsencode(os.path.expanduser(path))


def read_text(path: str, what: str) -> str:
    """Return what is in a small text file.

    Raises: TaskFailed.
    """
    with os.fdopen(_open(path, what), "rb") as file:
        data = file.read(_MAX_TEXT_BYTES + 1)
    if len(data) > _MAX_TEXT_BYTES:
        raise TaskFailed(FailureCode.PERMISSION, f"could not read {what} {path}: it is too large")
    return data.decode(errors="surrogateescape")


def _open(path: str, what: str) -> int:
    try:
        fd = os.open(os.path.expanduser(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not a valid path"
        raise TaskFailed(FailureCode.PERMISSION, f"could not read {what} {path}: {reason}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise TaskFailed(FailureCode.PERMISSION, f"could not read {what} {path}: it is not a regular file")
    return fd
