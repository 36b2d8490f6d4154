"""One small answer, kept in memory: a list of checksums, a few bytes to compare.

Runs as: the task's owner.  Talks to: a server, through a connection.
Invariants: no more than `most_bytes` are kept; whoever asked is told exactly once, unless it stopped the fetch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pycurl

from autodl_lib.contract.failures import FailureCode
from autodl_lib.worker.network.connection import Answer, Connection, Connections
from autodl_lib.worker.network.request_options import Request
from autodl_lib.worker.network.response_head import ResponseHead
from autodl_lib.worker.network.verdicts import CurlResult, TaskFailed, Verdict, curl_verdict

_NEVER = float("inf")
_LONGEST_S = 300.0
"""However patient the task is with a server that sends nothing: an answer that trickles comes to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """An answer: its head (status 0 where it was no HTTP) and its body."""

    head: ResponseHead
    body: bytes


class SmallFetch:
    """Fetches into memory; a connection's listener."""

    def __init__(self, request: Request, most_bytes: int, done: Callable[[Fetched | Verdict], None]) -> None:
        self._request = request
        self._most_bytes = most_bytes
        self._done = done
        self._url = request.url.decode("utf-8", "replace")
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._connection: Connection | None = None
        self._connections: Connections | None = None
        self._begun_mono = self._active_mono = 0.0
        self._seen_bytes = 0

    def start(self, connections: Connections) -> None:
        """Send the request.

        Raises: TaskFailed.
        """
        self._begun_mono = self._active_mono = time.monotonic()
        connection = connections.take()
        try:
            connection.start(self._request, self)
        except (pycurl.error, ValueError, TaskFailed) as error:
            connections.give_back(connection)
            if isinstance(error, TaskFailed):
                raise
            raise TaskFailed(FailureCode.BAD_URL, f"libcurl does not take this request: {error.args[-1]}") from None
        self._connection, self._connections = connection, connections

    def stop(self) -> None:
        """Stop; nobody is told."""
        if self._connection is not None and self._connections is not None:
            self._connection.stop()
            self._connections.give_back(self._connection)
            self._connection = None

    def wake_mono(self) -> float:
        """Return when `check` has something to do."""
        if self._connection is None:
            return _NEVER
        settings = self._request.settings
        patience_s = settings.stall_timeout_s + (0.0 if self._seen_bytes else settings.connect_timeout_s)
        return min(self._active_mono + patience_s, self._begun_mono + max(_LONGEST_S, patience_s))

    def check(self, now: float) -> None:
        """Give up when nothing has come for too long."""
        if now >= self.wake_mono():
            self.stop()
            words = f"the server sent nothing for {self._request.settings.stall_timeout_s:g} s"
            if now - self._active_mono < self._request.settings.stall_timeout_s:
                words = f"the server sent a short answer for over {now - self._begun_mono:.0f} s"
            self._done(Verdict(code=FailureCode.STALLED, message=words))

    def body_arrived(self, _connection: Connection, data: bytes) -> Answer:
        """See connection.Listener."""
        self._size_bytes += len(data)
        if self._size_bytes > self._most_bytes:
            return Answer.STOP
        self._pieces.append(data)
        return Answer.TAKEN

    def basin_filled(self, _connection: Connection) -> Answer:
        """See connection.Listener; nothing is poured here."""
        return Answer.TAKEN

    def connection_stepped(self, connection: Connection) -> None:
        """See connection.Listener."""
        seen = connection.bytes_seen()
        if seen != self._seen_bytes:
            self._seen_bytes = seen
            self._active_mono = time.monotonic()

    def connection_ended(self, connection: Connection, result: CurlResult) -> None:
        """See connection.Listener."""
        head = connection.head()
        if self._connections is not None:
            self._connections.give_back(connection)
        self._connection = None
        if self._size_bytes > self._most_bytes:
            words = f"the server sent more than the {self._most_bytes} bytes that were expected"
            self._done(Verdict(code=FailureCode.PROTOCOL, message=words))
        elif result.code:
            self._done(curl_verdict(result, self._url, self._request.options))
        else:
            self._done(Fetched(head=head, body=b"".join(self._pieces)))
