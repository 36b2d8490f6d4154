"""GET /events: `watch` as server-sent events.

Runs as: an unprivileged account.  Talks to: the daemon, on a connection of its own.
Invariants: whoever streams has shown the token, as for any other path. The stream begins with each task as it is; when
the daemon goes away it ends with an `error`, and a client that connects again sees all tasks anew. The next tasks are
asked for when the last ones have been taken: a slow reader costs one batch of memory.
Source: the HTML standard, "Server-sent events". JSON in ASCII has no line breaks, so a name can't make up an event.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

from autodl_lib.client.connection import Connection, TaskStream
from autodl_lib.contract.codec import dumps, to_json
from autodl_lib.contract.errors import AutodlError
from autodl_lib.contract.replies.tasks import Watching
from autodl_lib.contract.requests.following import Watch
from autodl_lib.contract.task import Task
from autodl_lib.http_shim.daemon_link import DaemonLink

CONTENT_TYPE = "text/event-stream"

TICK_S = 1.0
"""So long at most until a client that has gone is noticed."""

ALIVE_S = 15.0
"""So often something is sent, for proxies and clients that take silence for the end."""

RECONNECT_MS = 2000


class EventStream:
    """One stream, for one client."""

    def __init__(self, link: DaemonLink, request: Watch, on_close: Callable[[], None]) -> None:
        self._link = link
        self._request = request
        self._on_close = on_close
        self._connection: Connection | None = None
        self._tasks: TaskStream | None = None
        self._first: list[Task] = []
        self._told: Watching | None = None
        self._closed = False

    async def open(self) -> None:
        """Begin, and wait for the first tasks for a moment: what is refused is so before anything is sent.

        Raises: AutodlError.
        """
        self._first = await self._link.run_for_stream(self._begin)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield what to send, and nothing (b"") once in a while."""
        yield b"retry: %d\n\n" % RECONNECT_MS + self._events(self._first)
        sent_mono = time.monotonic()
        while not self._closed:
            try:
                piece = await self._link.run_for_stream(self._next)
            except AutodlError as error:
                yield _event("error", dumps({"code": error.code, "message": str(error)}))
                return
            if not piece and time.monotonic() - sent_mono > ALIVE_S:
                piece = b": still here\n\n"
            if piece:
                sent_mono = time.monotonic()
            yield piece

    def close(self) -> None:
        """Hang up; a step under way ends within a tick."""
        if not self._closed:
            self._closed = True
            self._on_close()
            if self._connection is not None:
                self._connection.close()

    def _begin(self) -> list[Task]:
        self._connection = self._link.open()
        self._tasks = self._connection.watch(self._request)
        return self._tasks.next_tasks(TICK_S)

    def _next(self) -> bytes:
        if self._closed or self._tasks is None:
            return b""
        return self._events(self._tasks.next_tasks(TICK_S))

    def _events(self, tasks: list[Task]) -> bytes:
        pieces = [_event("task", dumps(to_json(task))) for task in tasks]
        watching = self._tasks.watching if self._tasks is not None else None
        if watching is not None and self._told is None:
            self._told = watching
            pieces.append(_event("watching", dumps(to_json(watching))))
        return b"".join(pieces)


def _event(name: str, line: bytes) -> bytes:
    return b"event: %b\ndata: %b\n" % (name.encode("ascii"), line)
