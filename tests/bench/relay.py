"""A way to a server that takes long and holds much: `relay.py PORT [--one-way-ms MS] [--bare-connect]`.

Runs as: a process of the bench.  Talks to: clients and the server on loopback; the bench, by stdin and stdout.
Bytes leave in the order in which they came, each `--one-way-ms` (20) after it came, in both directions: a request
is answered 40 ms later than without the relay. A connection's first bytes wait 40 ms more, for the handshake that a
real way of this length would have had and that loopback has at once (`--bare-connect`: they don't).
It prints its port. A line `reset` on stdin ends every connection, answered by `ok`; the end of stdin ends it.
What it can do: 1.6 GB/s to one curl on 2 cores (without it 4.6); a direction holds up to _HELD_BYTES,
which is 20 ms of 3 GB/s, so the delay does not limit throughput.
Known limits: one thread; no loss, no slow start, no window: what is measured is the cost of round trips alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
from collections import deque
from dataclasses import dataclass

from limited_server import obey

_CHUNK_BYTES = 256 * 1024
_HELD_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where to, and how far that is."""

    port: int
    one_way_s: float
    handshake_s: float


class Lane:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, one_way_s: float, first_mono: float) -> None:
        self._source = source
        self._sink = sink
        self._one_way_s = one_way_s
        self._first_mono = first_mono
        self._held: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        self._came = asyncio.Event()
        self._left = asyncio.Event()

    async def take_in(self) -> None:
        """Note what comes and when it is due; the end comes as no bytes."""
        loop = asyncio.get_running_loop()
        data = b"."
        while data:
            while self._held_bytes > _HELD_BYTES:
                self._left.clear()
                await self._left.wait()
            data = await loop.sock_recv(self._source, _CHUNK_BYTES)
            due_mono = max(loop.time(), self._first_mono) + self._one_way_s
            self._held.append((due_mono, data))
            self._held_bytes += len(data)
            self._came.set()

    async def pass_on(self) -> None:
        """Send what is due."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._held:
                self._came.clear()
                await self._came.wait()
            due_mono, data = self._held.popleft()
            wait_s = due_mono - loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if not data:
                self._sink.shutdown(socket.SHUT_WR)
                return
            await loop.sock_sendall(self._sink, data)
            self._held_bytes -= len(data)
            self._left.set()


class Relay:
    """The connections that are open."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._open: set[asyncio.Task[None]] = set()

    def reset(self) -> None:
        """End every connection."""
        for connection in self._open:
            connection.cancel()

    async def accept(self, listener: socket.socket) -> None:
        """Take clients for ever."""
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listener)
            connection = asyncio.create_task(self._join(client))
            self._open.add(connection)
            connection.add_done_callback(self._open.discard)

    async def _join(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        first_mono = loop.time() + self._way.handshake_s
        with client, socket.socket() as server, contextlib.suppress(OSError):
            for side in (client, server):
                side.setblocking(False)
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(server, ("127.0.0.1", self._way.port))
            there = Lane(client, server, self._way.one_way_s, first_mono)
            back = Lane(server, client, self._way.one_way_s, first_mono)
            parts = [asyncio.create_task(part) for lane in (there, back) for part in (lane.take_in(), lane.pass_on())]
            try:
                await asyncio.gather(*parts)
            finally:
                for part in parts:
                    part.cancel()
                await asyncio.gather(*parts, return_exceptions=True)


async def main() -> None:
    """Relay until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--one-way-ms", type=float, default=20.0)
    parser.add_argument("--bare-connect", action="store_true")
    arguments = parser.parse_args()
    one_way_s = arguments.one_way_ms / 1000
    handshake_s = 0.0 if arguments.bare_connect else 2 * one_way_s
    relay = Relay(Way(port=arguments.port, one_way_s=one_way_s, handshake_s=handshake_s))
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.setblocking(False)
        print(listener.getsockname()[1], flush=True)
        accepting = asyncio.create_task(relay.accept(listener))
        await obey(relay.reset)
        accepting.cancel()


if __name__ == "__main__":
    asyncio.run(main())
