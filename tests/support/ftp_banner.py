"""A server that greets who comes for FTP, and says no more."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Callable, Iterable

from support.loopback_server import LoopbackServer


class FtpBanner(LoopbackServer):
    """Sends each client what `greeting` returns, until the client has gone."""

    def __init__(self, greeting: Callable[[], Iterable[bytes]]) -> None:
        super().__init__()
        self.url = f"ftp://{self.place}"
        self._greeting = greeting

    def serve(self, client: socket.socket) -> None:
        """See LoopbackServer."""
        with client, contextlib.suppress(OSError):
            for piece in self._greeting():
                client.sendall(piece)
            client.recv(1)


def busy() -> Iterable[bytes]:
    """Return what a server says that has no room."""
    return [b"421 Too many connections\r\n"]


def endless_lines() -> Iterable[bytes]:
    """Return a greeting that goes on and on."""
    return itertools.repeat(b"220-hello\r\n" * 1000)
