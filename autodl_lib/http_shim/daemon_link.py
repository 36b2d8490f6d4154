"""Asks the daemon: a few connections that are kept warm, on threads, since the client waits.

Runs as: an unprivileged account.  Talks to: the daemon through client.
Invariants: a connection serves one request at a time, and is used again only after an answer, and while nothing has
come unasked: a daemon that ended meanwhile is asked on a new connection, and nothing is ever asked twice. Idle
connections are closed soon, so that a private daemon ends as if nobody were here.
How it fails: NoDaemon, or Busy where this process has no descriptors left; the next request looks for the daemon again.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from autodl_lib.client.connection import Connection
from autodl_lib.contract.errors import Busy, NoDaemon, ProtocolMismatch, TimedOut
from autodl_lib.contract.requests.registry import Request

T = TypeVar("T")

MAX_CALLS = 4
MAX_STREAMS = 16
IDLE_S = 10.0


class DaemonLink:
    """The way to the daemon."""

    def __init__(self, open_connection: Callable[[], Connection]) -> None:
        self._open_connection = open_connection
        self._lock = threading.Lock()
        self._openings = 0
        self._idle: list[Connection] = []
        self._closing: asyncio.TimerHandle | None = None
        self._calls = ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="call")
        self._streams = ThreadPoolExecutor(MAX_STREAMS, thread_name_prefix="stream")

    async def run(self, work: Callable[[], T]) -> T:
        """Run what asks the daemon on a thread of the link."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._calls, work)
        finally:
            if self._closing is None:
                self._closing = loop.call_later(IDLE_S, self._close_idle)

    async def run_for_stream(self, work: Callable[[], T]) -> T:
        """Run a step of a stream; there are as many threads as streams may be."""
        return await asyncio.get_running_loop().run_in_executor(self._streams, work)

    def call(self, request: Request) -> dict[str, Any]:
        """Send one request and return its result; on a thread.

        Raises: AutodlError.
        """
        connection = self._take()
        try:
            result = connection.call(request)
        except (NoDaemon, TimedOut, ProtocolMismatch):
            # What comes on this connection from now on might answer an older question.
            connection.close()
            raise
        except Exception:
            self._idle.append(connection)
            raise
        self._idle.append(connection)
        return result

    def open(self) -> Connection:
        """Open a connection for a stream; on a thread.

        Raises: AutodlError.
        """
        with self._lock:
            if self._openings == 0:
                # A private daemon that this process started is its child, and may have ended since. One that is being
                # started is waited for by who starts it.
                _forget_children()
            self._openings += 1
        try:
            return self._open_connection()
        except OSError as error:
            raise Busy(f"can't connect to the daemon for now: {error.strerror}") from None
        finally:
            with self._lock:
                self._openings -= 1

    def close(self) -> None:
        """Start nothing more, and hang up."""
        self._calls.shutdown(wait=False, cancel_futures=True)
        self._streams.shutdown(wait=False, cancel_futures=True)
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Connection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self.open()
            if connection.is_quiet():
                return connection
            connection.close()

    def _close_idle(self) -> None:
        self._closing = None
        while self._idle:
            self._idle.pop(0).close()


def _forget_children() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
