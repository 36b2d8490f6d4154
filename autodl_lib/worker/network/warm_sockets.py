"""Connections at rest, and whether something has come on one of them though nothing was asked.

Runs as: the task's owner.  Talks to: nobody; looks at sockets, never reads from them.
A socket is known by its descriptor and its inode, since libcurl closes descriptors without a word and the numbers
are used again. Its inode is looked at only where it may have changed, and where something has come.
"""

from __future__ import annotations

import os
import select
from collections.abc import Container

_MOST = 64


class WarmSockets:
    """The sockets of requests that have ended."""

    def __init__(self) -> None:
        self._inodes: dict[int, int] = {}
        self._handed_over_bytes: dict[int, int] = {}
        self._sure: set[int] = set()
        """Those that no other can have taken the place of, if their next request needs no new connection."""
        self._poll = select.poll()

    def add(self, fd: int, handed_over_bytes: int, *, is_known: bool = False) -> None:
        """Remember a socket whose request has ended, and how much that has brought; below 0: it is closed already.

        `is_known`: the request had no connection made, so the socket was added before.
        """
        if not is_known:
            self.doubt()  # of a request with redirects, only the last connection is added
        if fd < 0:
            return
        if not (is_known and fd in self._sure):
            earlier_bytes = self.handed_over_bytes(fd)
            if not self._take_in(fd):
                return
            self._handed_over_bytes[fd] = earlier_bytes
        self._handed_over_bytes[fd] += handed_over_bytes
        self._inodes[fd] = self._inodes.pop(fd)  # as the newest
        if len(self._inodes) > _MOST:
            self._forget(next(iter(self._inodes)))

    def doubt(self) -> None:
        """Take in that a connection may have come to rest, or in the place of another, without having been added."""
        self._sure.clear()

    def handed_over_bytes(self, fd: int) -> int:
        """Return how much the earlier requests of a connection have brought, 0 of one that is new."""
        return self._handed_over_bytes[fd] if fd in self._inodes and self._is_same(fd) else 0

    def count(self) -> int:
        """Return how many there are."""
        return sum(1 for fd in self._inodes if self._is_same(fd))

    def forget(self) -> None:
        """Forget all: they are closed."""
        for fd in list(self._inodes):
            self._forget(fd)

    def has_unasked_bytes(self, busy: Container[int] = ()) -> bool:
        """Tell whether anything, be it the end, has come on a socket at rest; `busy` serve a request now."""
        if not self._inodes:
            return False
        for fd, _ in self._poll.poll(0):
            if fd in busy:
                continue
            if self._is_same(fd):
                return True
            self._forget(fd)
        return False

    def _take_in(self, fd: int) -> bool:
        """See which socket this is; False when it is none any more."""
        try:
            self._inodes[fd] = os.fstat(fd).st_ino
        except OSError:
            if fd in self._inodes:
                self._forget(fd)
            return False
        self._sure.add(fd)
        self._poll.register(fd, select.POLLIN)
        return True

    def _is_same(self, fd: int) -> bool:
        try:
            return os.fstat(fd).st_ino == self._inodes[fd]
        except OSError:
            return False

    def _forget(self, fd: int) -> None:
        del self._inodes[fd]
        del self._handed_over_bytes[fd]
        self._sure.discard(fd)
        self._poll.unregister(fd)
