"""One client's connection: lines in, replies out in the order of the requests, streams in between.

Runs as: the supervisor, on the loop.  Talks to: a local process that may be hostile.
Invariants: memory for one connection is bounded: reading stops while MAX_PENDING requests or
MAX_PENDING_BYTES are unanswered or the peer doesn't read, and questions are answered one at a time. A
question waits for the changes that the same connection asked for before it, while changes share commits. Requests
begin when it is their user's turn (fair_turns.py). What a user's connections hold together is bounded, too.
How it fails: whatever a peer sends or stops reading costs that peer its connection, and nobody else anything: one
that says nothing, leaves a line half sent, or does not read for a minute is cut.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import time
from typing import Protocol

from autodl_lib.contract.codec import MAX_LINE_BYTES, PROTOCOL_VERSION, dumps, to_json
from autodl_lib.contract.errors import AutodlError, InvalidParams, LineTooLong
from autodl_lib.contract.replies.greeting import Greeting
from autodl_lib.contract.replies.tasks import Saved
from autodl_lib.contract.task import Task
from autodl_lib.privilege.peer import Peer
from autodl_lib.supervisor.clients.access import Caller
from autodl_lib.supervisor.clients.dispatch import Dispatcher, error_reply, no_memory
from autodl_lib.supervisor.clients.fair_turns import HEAVY, LIGHT
from autodl_lib.supervisor.clients.watchers import Subscription

MAX_PENDING = 512
MAX_PENDING_BYTES = 8 * 1024 * 1024
WRITE_HIGH_WATER_BYTES = 256 * 1024
"""So little that all watches that a user may have, read by nobody, stay well below what their connections may hold."""

DRAIN_TIMEOUT_S = 60.0
LINE_TIMEOUT_S = 60.0
"""The first line must be whole so soon after connecting, and every other one after it began."""

LONG_LINE_BYTES = 16 * 1024
"""A longer line is a heavy turn."""

logger = logging.getLogger(__name__)


def greeting_of(version: str) -> bytes:
    """Return the first line of each connection."""
    greeting = Greeting(protocol=PROTOCOL_VERSION, version=version)
    return dumps({"jsonrpc": "2.0", "method": "hello", "params": to_json(greeting)})


class Owner(Protocol):
    """Who made the connection and counts it."""

    dispatcher: Dispatcher
    version: str

    async def admit(self, peer: Peer) -> Caller:
        """Return who the peer is; raises AutodlError."""

    def closed(self, connection: Connection) -> None:
        """The connection is gone."""

    def hold(self, peer: Peer, change_bytes: int) -> bool:
        """So many bytes more are kept for a peer; return whether that is too much for their user."""


class Connection(asyncio.Protocol):
    """A protocol of asyncio; `peer` is fixed when the connection is made."""

    def __init__(self, owner: Owner, peer: Peer) -> None:
        self._owner = owner
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
        self._line_timer: asyncio.TimerHandle | None = None
        self._held_bytes = 0
        self._in_line = False
        self._in_turn_to_read = False
        self._paid = False
        self._ended = False
        self._gone = False
        self.peer = peer

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        self._admitting = self._loop.create_task(self._admit(self.peer))
        self._line_timer = self._loop.call_later(LINE_TIMEOUT_S, self._cut_half_open)

    def data_received(self, data: bytes) -> None:
        try:
            self._buffer += data
            self._split()
        except MemoryError:
            self._refuse(no_memory("what a client sends"))
            return
        if len(self._buffer) >= MAX_LINE_BYTES and b"\n" not in self._buffer[:MAX_LINE_BYTES]:
            self._refuse(LineTooLong(f"a line may have at most {MAX_LINE_BYTES} bytes"))
        self._pump()
        turns = self._owner.dispatcher.service.turns
        cost = LIGHT if len(data) <= LONG_LINE_BYTES else HEAVY // 2
        if not turns.try_take(self.peer.uid, cost):
            # What this user sends is looked at in turn, too: until then nothing more is read.
            self._in_turn_to_read = True
            turns.call_in_turn(self.peer.uid, cost, self._read_on)
        self._throttle()
        self._account()

    def _read_on(self) -> None:
        self._in_turn_to_read = False
        self._throttle()

    def _split(self) -> None:
        """Cut whole lines off what was read, as many as may wait."""
        while len(self._lines) < MAX_PENDING:
            if self._buffer[:1].isspace():
                self._buffer = self._buffer.lstrip()
                self._scanned = 0
            end = self._buffer.find(b"\n", self._scanned)
            if end < 0:
                self._scanned = len(self._buffer)
                break
            if end >= MAX_LINE_BYTES:
                break
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._scanned = 0
            self._lines.append(line)
            self._lines_bytes += len(line)
            self._stop_line_timer()
        self._watch_line()

    def eof_received(self) -> bool:
        self._ended = True
        for subscription in self._subscriptions:
            self._owner.dispatcher.service.watchers.remove(subscription)
        self._subscriptions.clear()
        self._pump()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._drop_question()
        for subscription in self._subscriptions:
            self._owner.dispatcher.service.watchers.remove(subscription)
        self._subscriptions.clear()
        self._ended = True
        self._lines.clear()
        self._lines_bytes = 0
        self._buffer.clear()
        self._account()
        self._stop_line_timer()
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
        self._owner.dispatcher.service.watchers.add(subscription)
        self._subscriptions.append(subscription)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop streaming, as if nobody had asked for it."""
        self._owner.dispatcher.service.watchers.remove(subscription)
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def send_tasks(self, tasks: list[Task]) -> None:
        """Send notifications, one a task."""
        lines = [dumps({"jsonrpc": "2.0", "method": "task", "params": to_json(task)}) for task in tasks]
        self._send(b"".join(lines))

    def send_saved(self, saved: Saved) -> None:
        """Send one notification of many tasks."""
        self._send(dumps({"jsonrpc": "2.0", "method": "saved", "params": to_json(saved)}))

    def is_writable(self) -> bool:
        """Return whether the peer reads what it is sent."""
        return self._writable

    def abort(self) -> None:
        """Close at once; what was only asked needs no answer any more."""
        self._drop_question()
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
            self._send(greeting_of(self._owner.version) + error_reply(None, error))
            self.close()
            return
        self._send(greeting_of(self._owner.version))
        self._pump()

    def _pump(self) -> None:
        """Start requests in their order, as many as may be under way."""
        if self._caller is None:
            return
        turns = self._owner.dispatcher.service.turns
        uid = self._caller.uid
        while self._may_start():
            cost = HEAVY if len(self._lines[0]) > LONG_LINE_BYTES else LIGHT
            if not self._paid and not turns.try_begin(uid, cost):
                self._in_line = True
                turns.call_to_begin(uid, cost, self._take_turn)
                break
            self._paid = False
            began_mono = time.monotonic()
            self._start(self._lines.popleft(), self._caller)
            if cost == HEAVY:
                turns.charge(uid, time.monotonic() - began_mono)
            if len(self._lines) < MAX_PENDING:
                self._split()
        self._throttle()
        self._account()
        if self._ended and not self._lines and not self._pending and not self._subscriptions:
            self.close()

    def _may_start(self) -> bool:
        """Return whether a line is there that may begin now, but for its user's turn."""
        if not self._lines or self._in_line or not self._writable:
            return False
        return len(self._pending) < MAX_PENDING and not self._question_runs()

    def _take_turn(self) -> None:
        self._in_line = False
        self._paid = True
        self._pump()
        if self._paid:  # it does not go on after all: the peer is gone, or reads nothing
            self._paid = False
            self._owner.dispatcher.service.turns.ended(self.peer.uid)

    def _start(self, line: bytes, caller: Caller) -> None:
        self._lines_bytes -= len(line)
        started = self._owner.dispatcher.start(line, caller, self, frozenset(self._changes))
        if started.changes:
            self._changes.add(started.reply)
            started.reply.add_done_callback(self._changes.discard)
        else:
            self._question = started.reply
        self._pending.append(started.reply)
        started.reply.add_done_callback(lambda _: self._owner.dispatcher.service.turns.ended(caller.uid))
        started.reply.add_done_callback(self._reply)

    def _account(self) -> None:
        """Say what this connection holds of our memory; whose user's connections hold too much loses this one."""
        unsent = self._transport.get_write_buffer_size() if self._transport is not None else 0
        held = 0 if self._gone else len(self._buffer) + self._lines_bytes + unsent
        change, self._held_bytes = held - self._held_bytes, held
        if change and self._owner.hold(self.peer, change) and change > 0:
            self.abort()

    def _cut_half_open(self) -> None:
        """Half a line, or none at all, for a minute."""
        self._line_timer = None
        self.abort()

    def _drop_question(self) -> None:
        """Nobody reads the answer: it is not made to its end. Changes are, since they are on their way to the disk."""
        if self._question is not None:
            self._question.cancel()

    def _watch_line(self) -> None:
        """Half a line is to be followed by the rest soon, where we read at all."""
        if self._line_timer is None and self._reading and self._buffer and len(self._lines) < MAX_PENDING:
            self._line_timer = self._loop.call_later(LINE_TIMEOUT_S, self._cut_half_open)

    def _stop_line_timer(self) -> None:
        if self._line_timer is not None:
            self._line_timer.cancel()
            self._line_timer = None

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
        full = full or self._in_turn_to_read
        if full and self._reading:
            self._transport.pause_reading()
            self._reading = False
            self._stop_line_timer()
        elif not full and not self._reading:
            self._transport.resume_reading()
            self._reading = True
            self._watch_line()

    def _refuse(self, error: AutodlError) -> None:
        self._buffer.clear()
        self._send(error_reply(None, error))
        self.close()

    def _send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
            if not self._writable:
                self._account()
