"""Accepts HTTP clients, as many as there are places for.

Runs as: an unprivileged account.  Talks to: HTTP clients: hostile.
Security: any local process can connect, and none can keep others out: where all places are taken, the oldest client
that has not shown the token makes way for a new one, else one that has no request under way. Clients are accepted one
at a time, each with a turn for the rest in between.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Protocol

from autodl_lib.http_shim.client_stream import PIECE_BYTES, ClientStream, Patience

MAX_CONNECTIONS = 128
GRACE_S = 3.0
"""What is being answered when the server is to end has so long."""

_ACCEPT_PAUSE_S = 0.5

logger = logging.getLogger(__name__)


class Phase(StrEnum):
    """What a connection is doing."""

    UNPROVEN = "unproven"
    """It has not shown the token yet."""
    IDLE = "idle"
    """It may ask something more."""
    BUSY = "busy"
    """A request of it is being answered."""
    STREAMING = "streaming"


class Served(Protocol):
    """A client's connection."""

    phase: Phase

    async def serve(self) -> None:
        """Answer until it is done."""

    def drop(self) -> None:
        """End it at once."""


class Server:
    """All clients."""

    def __init__(self, make: Callable[[ClientStream], Served], patience: Patience) -> None:
        self._make = make
        self._patience = patience
        self._connections: dict[Served, asyncio.Task[None]] = {}

    async def run(self, sockets: Iterable[socket.socket], stop: asyncio.Event) -> None:
        """Serve until told to stop; then end what is idle at once, and the rest soon."""
        accepting = [asyncio.create_task(self._accept_all(listening)) for listening in sockets]
        await stop.wait()
        for task in accepting:
            task.cancel()
        serving = dict(self._connections)
        for connection, task in serving.items():
            if connection.phase is not Phase.BUSY:
                task.cancel()
        if serving:
            await asyncio.wait(serving.values(), timeout=GRACE_S)
        for task in serving.values():
            task.cancel()
        await asyncio.gather(*accepting, *serving.values(), return_exceptions=True)

    async def _accept_all(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        listening.setblocking(False)
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                logger.error("can't accept connections: %s", error.strerror)
                await asyncio.sleep(_ACCEPT_PAUSE_S)
                continue
            try:
                await self._take(accepted)
            except Exception:
                # Whatever it was, the next one must not be kept out by it.
                logger.exception("internal error with a new connection")
                accepted.close()
            # A place that was taken is free when its connection's task has ended.
            await asyncio.sleep(0)

    async def _take(self, accepted: socket.socket) -> None:
        if len(self._connections) >= MAX_CONNECTIONS and not self._make_room():
            # Every one of them has the token, and is being served.
            accepted.close()
            return
        accepted.setblocking(False)
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=PIECE_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, accepted)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        connection = self._make(ClientStream(reader, writer, self._patience))
        task = loop.create_task(connection.serve())
        self._connections[connection] = task
        task.add_done_callback(lambda _: self._connections.pop(connection, None))

    def _make_room(self) -> bool:
        for phase in (Phase.UNPROVEN, Phase.IDLE):
            chosen = next((one for one in self._connections if one.phase is phase), None)
            if chosen is not None:
                self._connections.pop(chosen)
                chosen.drop()
                return True
        return False
