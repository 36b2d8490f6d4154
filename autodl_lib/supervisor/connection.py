"""One client's connection: lines in, replies out in the order of the requests, streams in between.

Runs as: the supervisor, on the loop.  Talks to: a local process that may be hostile.
Invariants: memory for one connection is bounded: reading stops while MAX_PENDING requests or
MAX_PENDING_BYTES are unanswered or the peer doesn't read, and questions are answered one at a time. A
question waits for the changes that the same connection asked for before it, while changes share commits.
How it fails: whatever a peer sends or stops reading costs that peer its connection, and nobody else anything.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Callable
from typing import Protocol

from autodl_lib.contract.codec import MAX_LINE_BYTES, PROTOCOL_VERSION, dumps, to_json
from autodl_lib.contract.errors import AutodlError, InvalidParams, LineTooLong
from autodl_lib.contract.replies import Greeting
from autodl_lib.contract.task import Task
from autodl_lib.privilege.peer import Peer
from autodl_lib.supervisor.access import Caller
from autodl_lib.supervisor.dispatch import Dispatcher, error_reply
from autodl_lib.supervisor.watchers import Subscription

MAX_PENDING = 512
MAX_PENDING_BYTES = 8 * 1024 * 1024
WRITE_HIGH_WATER_BYTES = 1024 * 1024
DRAIN_TIMEOUT_S = 60.0

logger = logging.getLogger(__name__)


class Owner(Protocol):
    """Who made the connection and counts it."""

    dispatcher: Dispatcher
    version: str

    async def admit(self, peer: Peer) -> Caller:
        """Return who the peer is; raises AutodlError."""

    def closed(self, connection: Connection) -> None:
        """The connection is gone."""


class Connection(asyncio.Protocol):
    """A protocol of asyncio; `peer` is fixed when the connection is made."""

    def __init__(self, owner: Owner, peer_of: Callable[[asyncio.BaseTransport], Peer]) -> None:
        self._owner = owner
        self._peer_of = peer_of
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._scanned = 0
        self._lines: collections.deque[bytes] = collections.deque()
        self._lines_bytes = 0
        self._pending: collections.deque[asyncio.Task[bytes]] = collections.deque()
        self._changes: set[asyncio.Task[bytes]] = set()
        self._question: asyncio.Task[bytes] | None = None
        self._caller: Caller | None = None
        self._admitting: asyncio.Task[None] | None = None
        self._subscriptions: list[Subscription] = []
        self._transport: asyncio.Transport | None = None
        self._reading = True
        self._writable = True
        self._drain_timer: asyncio.TimerHandle | None = None
        self._ended = False
        self.peer: Peer | None = None

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        try:
            self.peer = self._peer_of(transport)
        except OSError:
            transport.abort()
            return
        self._admitting = self._loop.create_task(self._admit(self.peer))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            end = self._buffer.find(b"\n", self._scanned)
            if end < 0:
                self._scanned = len(self._buffer)
                break
            if end >= MAX_LINE_BYTES:
                break
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._scanned = 0
            if line.strip():
                self._lines.append(line)
                self._lines_bytes += len(line)
        if len(self._buffer) >= MAX_LINE_BYTES:
            self._refuse_long_line()
        self._pump()
        self._throttle()

    def eof_received(self) -> bool:
        self._ended = True
        for subscription in self._subscriptions:
            self._owner.dispatcher.service.watchers.remove(subscription)
        self._subscriptions.clear()
        self._pump()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        for subscription in self._subscriptions:
            self._owner.dispatcher.service.watchers.remove(subscription)
        self._subscriptions.clear()
        self._ended = True
        self._lines.clear()
        if self._admitting is not None:
            self._admitting.cancel()
        if self._drain_timer is not None:
            self._drain_timer.cancel()
        self._owner.closed(self)

    def pause_writing(self) -> None:
        self._writable = False
        self._drain_timer = self._loop.call_later(DRAIN_TIMEOUT_S, self.abort)

    def resume_writing(self) -> None:
        self._writable = True
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None
        for subscription in self._subscriptions:
            self._owner.dispatcher.service.watchers.resume(subscription)
        self._reply()
        self._pump()

    # --- what handlers use ---

    def subscribe(self, subscription: Subscription) -> None:
        """Stream to this connection until it closes."""
        if self._ended or self._transport is None or self._transport.is_closing():
            return
        if self._subscriptions:
            raise InvalidParams("this connection watches already: open another one for another watch")
        self._subscriptions.append(subscription)
        self._owner.dispatcher.service.watchers.add(subscription)

    def send_tasks(self, tasks: list[Task]) -> None:
        """Send notifications, one a task."""
        lines = [dumps({"jsonrpc": "2.0", "method": "task", "params": to_json(task)}) for task in tasks]
        self._send(b"".join(lines))

    def is_writable(self) -> bool:
        """Return whether the peer reads what it is sent."""
        return self._writable

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close when what was sent has been read."""
        if self._transport is not None:
            self._transport.close()

    # --- inside ---

    async def _admit(self, peer: Peer) -> None:
        try:
            self._caller = await self._owner.admit(peer)
        except AutodlError as error:
            self._send(self._greeting() + error_reply(None, error))
            self.close()
            return
        self._send(self._greeting())
        self._pump()

    def _pump(self) -> None:
        """Start requests in their order, as many as may be under way."""
        if self._caller is None:
            return
        while self._lines and len(self._pending) < MAX_PENDING and self._writable and not self._question_runs():
            line = self._lines.popleft()
            self._lines_bytes -= len(line)
            started = self._owner.dispatcher.start(line, self._caller, self, frozenset(self._changes))
            if started.changes:
                self._changes.add(started.reply)
                started.reply.add_done_callback(self._changes.discard)
            else:
                self._question = started.reply
            self._pending.append(started.reply)
            started.reply.add_done_callback(self._reply)
        self._throttle()
        if self._ended and not self._lines and not self._pending and not self._subscriptions:
            self.close()

    def _question_runs(self) -> bool:
        """Answers can be long: one is made at a time, and none while the peer doesn't read."""
        return self._question is not None and not self._question.done()

    def _reply(self, _: asyncio.Task[bytes] | None = None) -> None:
        """Send the replies that are there, in the order of their requests."""
        replied = False
        while self._pending and self._pending[0].done() and self._writable:
            task = self._pending.popleft()
            if not task.cancelled():
                self._send(task.result())
            replied = True
        if replied:
            self._pump()

    def _throttle(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        full = len(self._lines) + len(self._pending) >= MAX_PENDING or self._lines_bytes >= MAX_PENDING_BYTES
        if full and self._reading:
            self._transport.pause_reading()
            self._reading = False
        elif not full and not self._reading:
            self._transport.resume_reading()
            self._reading = True

    def _refuse_long_line(self) -> None:
        self._buffer.clear()
        self._send(error_reply(None, LineTooLong(f"a line may have at most {MAX_LINE_BYTES} bytes")))
        self.close()

    def _greeting(self) -> bytes:
        greeting = Greeting(protocol=PROTOCOL_VERSION, version=self._owner.version)
        return dumps({"jsonrpc": "2.0", "method": "hello", "params": to_json(greeting)})

    def _send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
