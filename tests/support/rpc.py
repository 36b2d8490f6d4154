"""A raw JSON-RPC client, independent of the product's own: what the tests know of the wire."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.waiting import PATIENCE_S


class Refused(Exception):
    """The daemon answered with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['data']['code']}: {error['message']}")
        self.code: str = error["data"]["code"]
        self.message: str = error["message"]


class Wire:
    """One connection; the greeting has been read when it is made."""

    def __init__(self, path: Path | str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            # First of all: under a timeout, connecting fails at once where many come at the same time.
            self._socket.connect(str(path))
            self._socket.settimeout(PATIENCE_S)
            self._lines = self._socket.makefile("rb")
            greeting = self.read()
            if greeting is None:
                raise ConnectionError("the daemon closed the connection without a greeting")
        except BaseException:
            self._socket.close()
            raise
        self.greeting = greeting
        self.notifications: list[dict[str, Any]] = []
        self._next_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close both directions."""
        self._lines.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def finish_sending(self) -> None:
        """Say that no more comes."""
        self._socket.shutdown(socket.SHUT_WR)

    def is_cut(self) -> bool:
        """Tell whether the daemon has closed the connection, read to its end or not."""
        poll = select.poll()
        poll.register(self._socket, select.POLLHUP)
        return bool(poll.poll(0))

    def read(self) -> dict[str, Any] | None:
        """Return the next line, decoded; None at the end."""
        try:
            line = self._lines.readline()
        except ConnectionResetError:
            return None
        if not line:
            return None
        document = json.loads(line)
        assert isinstance(document, dict)
        return document

    def ask(self, method: str, **params: Any) -> int:
        """Send a request and return its id without waiting."""
        self._next_id += 1
        self.send(request(self._next_id, method, **params))
        return self._next_id

    def reply(self) -> dict[str, Any]:
        """Return the next reply; notifications before it are kept."""
        while (document := self.read()) is not None:
            if "id" in document:
                return document
            self.notifications.append(document["params"])
        raise ConnectionError("the daemon closed the connection")

    def call(self, method: str, **params: Any) -> Any:
        """Send a request and return its result.

        Raises: Refused.
        """
        number = self.ask(method, **params)
        document = self.reply()
        if "error" in document and document["id"] in (number, None):  # the latter: before it was read at all
            raise Refused(document["error"])
        assert document["id"] == number, document
        return document["result"]

    def tasks(self) -> Iterator[dict[str, Any]]:
        """Yield the tasks of notifications, those that came before a reply first."""
        while True:
            while self.notifications:
                yield self.notifications.pop(0)
            document = self.read()
            if document is None:
                raise ConnectionError("the daemon closed the connection")
            if document.get("method") == "task":
                yield document["params"]


def request(number: int | str, method: str, **params: Any) -> bytes:
    """Encode a request."""
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"
