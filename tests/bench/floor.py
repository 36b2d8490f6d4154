"""The least that a download can cost: `floor.py URL...` or `floor.py -i LIST`, saved to the current folder.

Runs as: a process of the bench.  Talks to: a server that answers 200 with a Content-Length.
Several URLs come at once, a thread each; those of a list one after another on one connection. recv and pwrite, no
checks, no resume, no sync.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from urllib.parse import urlsplit

_BUFFER_BYTES = 1 << 20


class Client:
    """One connection, and the buffer that all it brings goes through."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._socket = socket.create_connection((host, port))
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))

    def save(self, path: str) -> None:
        """Save one file under its last name."""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        got = self._socket.recv_into(self._buffer)
        while b"\r\n\r\n" not in bytes(self._buffer[:got]):
            more = self._socket.recv_into(self._buffer[got:])
            if not more:
                raise ConnectionError("the head is cut")
            got += more
        head, _, body = bytes(self._buffer[:got]).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(head.splitlines()[0].decode())
        [length] = [line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        file = os.open(path.rpartition("/")[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            self._fill(file, body, int(length))
        finally:
            os.close(file)

    def _fill(self, file: int, body: bytes, size_bytes: int) -> None:
        os.pwrite(file, body, 0)
        offset = len(body)
        while offset < size_bytes:
            got = self._socket.recv_into(self._buffer)
            if not got:
                raise ConnectionError("the body is cut")
            os.pwrite(file, self._buffer[:got], offset)
            offset += got


def save_one(url: str) -> None:
    """Save one URL on a connection of its own."""
    parts = urlsplit(url)
    Client(parts.hostname or "", parts.port or 80).save(parts.path)


def save_list(urls: list[str]) -> None:
    """Save URLs of one server on one connection."""
    first = urlsplit(urls[0])
    client = Client(first.hostname or "", first.port or 80)
    for url in urls:
        client.save(urlsplit(url).path)


def main() -> None:
    """Save what the command line names."""
    if sys.argv[1] == "-i":
        with open(sys.argv[2]) as file:
            save_list(file.read().split())
        return
    threads = [threading.Thread(target=save_one, args=(url,)) for url in sys.argv[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
