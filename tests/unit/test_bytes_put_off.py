"""Bytes that a listener wants later come twice, and count once: who takes a body past libcurl relies on the number."""

from __future__ import annotations

import select

from autodl_lib.worker.network.connection import Answer, Connection
from autodl_lib.worker.network.engine import Engine
from autodl_lib.worker.network.verdicts import CurlResult


class Listener:
    """Takes what comes the second time."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self._answers = [Answer.LATER, Answer.TAKEN, Answer.TAKEN]

    def body_arrived(self, _connection: Connection, data: bytes) -> Answer:
        """See connection.Listener."""
        answer = self._answers.pop(0)
        if answer is Answer.TAKEN:
            self.taken.append(data)
        return answer

    def basin_filled(self, _connection: Connection) -> Answer:
        """See connection.Listener."""
        return Answer.TAKEN

    def connection_stepped(self, _connection: Connection) -> None:
        """See connection.Listener."""

    def connection_ended(self, _connection: Connection, _result: CurlResult) -> None:
        """See connection.Listener."""


def test_bytes_that_are_put_off_count_when_they_are_taken() -> None:
    connection, listener = Connection(Engine(select.epoll())), Listener()
    connection._listener = listener
    connection._take_body(b"first")
    assert connection.bytes_seen() == 0
    connection._take_body(b"first")
    connection._take_body(b"second")
    assert connection.bytes_seen() == len(b"first" + b"second")
    assert listener.taken == [b"first", b"second"]
