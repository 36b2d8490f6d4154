"""A datagram socket that messages arrive on, as systemd and its journal have them."""

from __future__ import annotations

import socket
from pathlib import Path

_PATIENCE_S = 30.0


class Mailbox:
    """The socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))

    def next(self, timeout_s: float = _PATIENCE_S) -> bytes:
        """Wait for the next message.

        Raises: TimeoutError.
        """
        self.socket.settimeout(timeout_s)
        return self.socket.recv(1 << 20)

    def all(self) -> list[bytes]:
        """Return what has arrived by now."""
        self.socket.setblocking(False)
        found = []
        try:
            while True:
                found.append(self.socket.recv(1 << 20))
        except BlockingIOError:
            return found

    def await_message(self, wanted: bytes) -> list[bytes]:
        """Wait for a message; return those that came before it.

        Raises: TimeoutError.
        """
        before = []
        while (message := self.next()) != wanted:
            before.append(message)
        return before

    def close(self) -> None:
        """Close it."""
        self.socket.close()
