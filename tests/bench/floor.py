"""The least that a download can cost: `floor.py URL...` or `floor.py -i LIST`, saved to the current folder.

Runs as: a process of the bench.  Talks to: a server that answers 200 with a Content-Length.
Several URLs come at once, a thread each; those of a list on a few connections in turn, so that an answer is under
way while another is saved. recv and pwrite, no checks, no resume, no sync.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from urllib.parse import urlsplit

_BUFFER_BYTES = 1 << 20
_HEAD_BYTES = 2048
_CONNECTIONS = 8


class Client:
    """One connection, and the buffer that all it brings goes through."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._socket = socket.create_connection((host, port))
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))

    def ask(self, path: str) -> None:
        """Send a request."""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())

    def save(self, name: str) -> None:
        """Save what was asked for."""
        got = self._socket.recv_into(self._buffer)
        while b"\r\n\r\n" not in bytes(self._buffer[: min(got, _HEAD_BYTES)]):
            more = self._socket.recv_into(self._buffer[got:])
            if not more:
                raise ConnectionError("the head is cut")
            got += more
        head = bytes(self._buffer[: min(got, _HEAD_BYTES)]).partition(b"\r\n\r\n")[0]
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(head.splitlines()[0].decode())
        [length] = [line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            self._fill(file, self._buffer[len(head) + 4 : got], int(length))
        finally:
            os.close(file)

    def _fill(self, file: int, body: memoryview, size_bytes: int) -> None:
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
    client = Client(parts.hostname or "", parts.port or 80)
    client.ask(parts.path)
    client.save(parts.path.rpartition("/")[2])


def save_list(urls: list[str]) -> None:
    """Save URLs of one server."""
    first = urlsplit(urls[0])
    clients = [Client(first.hostname or "", first.port or 80) for _ in range(min(_CONNECTIONS, len(urls)))]
    start = urls[0].index(first.path, len("http://"))
    for client, url in zip(clients, urls, strict=False):
        client.ask(url[start:])
    for number, url in enumerate(urls):
        client = clients[number % len(clients)]
        client.save(url.rpartition("/")[2])
        if number + len(clients) < len(urls):
            client.ask(urls[number + len(clients)][start:])


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
