"""Connections at rest, and whether something has come on one of them though nothing was asked.

Runs as: the task's owner.  Talks to: nobody; looks at sockets, never reads from them.
A socket is known by its descriptor and its inode, since libcurl closes descriptors without a word and the numbers
are used again.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Container

_MOST = 64


class WarmSockets:
    """The sockets of requests that have ended."""

    def __init__(self) -> None:
        self._inodes: dict[int, int] = {}
        self._handed_over_bytes: dict[int, int] = {}

    def add(self, fd: int, handed_over_bytes: int) -> None:
        """Remember a socket whose request has ended, and how much that has brought; below 0: it is closed already."""
        if fd < 0:
            return
        before = self._inodes.pop(fd, None)  # what is put in again becomes the newest
        with contextlib.suppress(OSError):
            inode = self._inodes[fd] = os.fstat(fd).st_ino
            earlier_bytes = self._handed_over_bytes.get(fd, 0) if inode == before else 0
            self._handed_over_bytes[fd] = earlier_bytes + handed_over_bytes
        if len(self._inodes) > _MOST:
            del self._handed_over_bytes[oldest := next(iter(self._inodes))]
            del self._inodes[oldest]

    def handed_over_bytes(self, fd: int) -> int:
        """Return how much the earlier requests of a connection have brought, 0 of one that is new."""
        inode = self._inodes.get(fd)
        with contextlib.suppress(OSError):
            if inode is not None and os.fstat(fd).st_ino == inode:
                return self._handed_over_bytes[fd]
        return 0

    def forget(self) -> None:
        """Forget all: they are closed."""
        self._inodes.clear()
        self._handed_over_bytes.clear()

    def has_unasked_bytes(self, busy: Container[int] = ()) -> bool:
        """Tell whether anything, be it the end, has come on a socket at rest; `busy` serve a request now."""
        if not self._inodes:
            return False
        poll = select.poll()
        for fd, inode in list(self._inodes.items()):
            try:
                if os.fstat(fd).st_ino == inode:
                    if fd not in busy:
                        poll.register(fd, select.POLLIN)
                    continue
            except OSError:
                pass
            del self._inodes[fd]
            del self._handed_over_bytes[fd]
        return bool(poll.poll(0))
