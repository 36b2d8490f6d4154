"""Hears from the kernel when the machine's network changes: a link, an address or a route came.

Runs as: the supervisor.  Talks to: the kernel's routing socket, on which it only listens.
Source: rtnetlink(7). Of a message only the type is read. What is lost in a flood (ENOBUFS) was a change, too.
How it fails: where there is no such socket, tasks wait for their next look at the network instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import struct
from collections.abc import Callable

DEBOUNCE_S = 1.0
"""A network that comes up says many things in a row; the last of them is the best time to try."""

_NETLINK_ROUTE = 0
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE."""

_CAME = frozenset({16, 20, 24})
"""RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE."""

_HEADER = struct.Struct("=IHHII")

logger = logging.getLogger(__name__)


class NetworkWatch:
    """Calls back on the running loop, once for changes that come together."""

    def __init__(self, on_change: Callable[[], None], debounce_s: float = DEBOUNCE_S) -> None:
        self._on_change = on_change
        self._debounce_s = debounce_s
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to listen."""
        try:
            listening = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_ROUTE)
        except OSError as error:
            logger.info("changes of the network are not heard: %s", error, extra={"event": "network_unwatched"})
            return
        try:
            listening.bind((0, _GROUPS))
        except OSError as error:
            listening.close()
            logger.info("changes of the network are not heard: %s", error, extra={"event": "network_unwatched"})
            return
        self._socket = listening
        self._loop.add_reader(listening.fileno(), self._read)

    def close(self) -> None:
        """Stop listening."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        came = False
        with contextlib.suppress(BlockingIOError):
            while self._socket is not None:
                try:
                    came |= says_something_came(self._socket.recv(65536))
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    came = True
        if came:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(self._debounce_s, self._on_change)


def says_something_came(data: bytes) -> bool:
    """Return whether a datagram of the routing socket tells of a new link, address or route."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if kind in _CAME:
            return True
        if length < _HEADER.size:
            break
        offset += (length + 3) & ~3
    return False
