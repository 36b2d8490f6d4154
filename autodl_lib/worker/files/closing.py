"""Closing files: which errors it may tell, and when they count.

Runs as: the task's owner.  Talks to: the destination folder.
A file system of a network or in user space may tell at a close that bytes were lost. After fsync there is nothing left
to be told; where nothing is synced, `flush` hears of it while a file can still be refused.
How it fails: OSError from `flush`; `close_quietly` doesn't.
Source: close(2), dup(2).
"""

from __future__ import annotations

import logging
import os

logger = logging.getLogger(__name__)


def flush(fd: int) -> None:
    """Hear now what a close would tell; the descriptor stays open.

    Raises: OSError.
    """
    os.close(os.dup(fd))


def close_quietly(fd: int) -> None:
    """Close a file that was synced or flushed, or is not wanted; the descriptor is gone whatever the answer is."""
    try:
        os.close(fd)
    except OSError as error:
        logger.debug("a file could not be closed", extra={"event": "close_failed", "reason": str(error)})
