"""An HTTP server that gives each connection a rate of its own: `limited_server.py FILE --rate-bps N [...]`.

Runs as: a process of the bench.  Talks to: HTTP clients on loopback; the bench, by its stdin and stdout.
It serves one file from memory at every path: HTTP/1.1 with GET, HEAD, one range, ETag, If-Range, If-Match and
keep-alive. With `--slow-every K` the Kth, 2Kth, ... connection since the last reset gets `--slow-bps` in place of
`--rate-bps`, in the order in which connections were accepted, so a client that connects again draws again.
It prints its port. A line `reset` on stdin ends every connection and begins the count again, answered by `ok`;
the end of stdin ends it.
Invariants: bytes are earned before they are sent; a client that was slow to read catches up for _BURST_S at most.
Known limits: one thread; on 2 shared cores 16 connections get 64 MiB/s together without falling behind.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_BURST_S = 0.05
_TICKS_PER_S = 128
_LARGEST_WRITE_BYTES = 16384
_DATE = "Sat, 01 Jan 2022 00:00:00 GMT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a connection gets, by its number."""

    usual_bps: int
    slow_bps: int
    slow_every: int

    def of(self, number: int) -> int:
        """Return the rate of the connection that was accepted as the `number`th, counted from 1."""
        return self.slow_bps if self.slow_every and number % self.slow_every == 0 else self.usual_bps


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request: method, version, and headers with names in lower case."""

    method: str
    version: str
    headers: dict[str, str]

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection stays open after the answer."""
        word = self.headers.get("connection", "").lower()
        return word == "keep-alive" if self.version == "HTTP/1.0" else word != "close"


class Bucket:
    """When the next bytes of a connection are due."""

    def __init__(self, rate_bps: int) -> None:
        self.rate_bps = rate_bps
        self.write_bytes = max(1024, min(_LARGEST_WRITE_BYTES, rate_bps // _TICKS_PER_S))
        self._paid_until_mono = 0.0

    def idle_until(self, now_mono: float) -> None:
        """Let nothing be earned by waiting for a request."""
        self._paid_until_mono = max(self._paid_until_mono, now_mono)

    async def earn(self, size_bytes: int) -> None:
        """Return when so many bytes may go."""
        now_mono = asyncio.get_running_loop().time()
        self._paid_until_mono = max(self._paid_until_mono, now_mono - _BURST_S) + size_bytes / self.rate_bps
        if self._paid_until_mono > now_mono:
            await asyncio.sleep(self._paid_until_mono - now_mono)


class LimitedServer:
    """The file, and the connections that are open."""

    def __init__(self, body: bytes, rates: Rates) -> None:
        self._body = memoryview(body)
        self._etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        self._rates = rates
        self._accepted = 0
        self._open: set[asyncio.StreamWriter] = set()

    def reset(self) -> None:
        """End every connection, and let the next one be the first."""
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()
        self._accepted = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self._accepted += 1
        bucket = Bucket(self._rates.of(self._accepted))
        self._open.add(writer)
        try:
            while (ask := await _read_ask(reader)) is not None:
                bucket.idle_until(asyncio.get_running_loop().time())
                await self._answer(ask, writer, bucket)
                if not ask.keeps_alive:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, ask: Ask, writer: asyncio.StreamWriter, bucket: Bucket) -> None:
        status, first, after = self._choose(ask)
        lines = [f"HTTP/1.1 {status}", f"ETag: {self._etag}", f"Last-Modified: {_DATE}", "Accept-Ranges: bytes"]
        lines += ["Content-Type: application/octet-stream", f"Content-Length: {after - first}"]
        lines.append(f"Connection: {'keep-alive' if ask.keeps_alive else 'close'}")
        if status.startswith("206"):
            lines.append(f"Content-Range: bytes {first}-{after - 1}/{len(self._body)}")
        if status.startswith("416"):
            lines.append(f"Content-Range: bytes */{len(self._body)}")
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await writer.drain()
        if ask.method == "HEAD":
            return
        while first < after:
            size_bytes = min(bucket.write_bytes, after - first)
            await bucket.earn(size_bytes)
            writer.write(self._body[first : first + size_bytes])
            await writer.drain()
            first += size_bytes

    def _choose(self, ask: Ask) -> tuple[str, int, int]:
        """Return the status line's end, and the bytes to send: from, and up to but without.

        Source: RFC 9110, sections 13 and 14.
        """
        size_bytes = len(self._body)
        if ask.method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", 0, 0
        if ask.headers.get("if-match", self._etag) not in (self._etag, "*"):
            return "412 Precondition Failed", 0, 0
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", ask.headers.get("range", ""))
        same = ask.headers.get("if-range", self._etag) in (self._etag, _DATE)
        if match is None or not same or not any(match.groups()):
            return "200 OK", 0, size_bytes
        if not match[1]:
            first, after = max(0, size_bytes - int(match[2])), size_bytes
        else:
            first = int(match[1])
            after = min(size_bytes, int(match[2]) + 1) if match[2] else size_bytes
        if first >= after:
            return "416 Range Not Satisfiable", 0, 0
        return "206 Partial Content", first, after


async def _read_ask(reader: asyncio.StreamReader) -> Ask | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise
        return None
    first, *rest = head.split("\r\n")[:-2]
    method, _, version = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    return Ask(method=method, version=version, headers=headers)


async def obey(reset: Callable[[], None]) -> None:
    """Do what the lines of stdin say until it ends."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        if line == b"reset\n":
            reset()
            print("ok", flush=True)


async def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--rate-bps", type=int, required=True)
    parser.add_argument("--slow-bps", type=int, default=0)
    parser.add_argument("--slow-every", type=int, default=0)
    arguments = parser.parse_args()
    rates = Rates(usual_bps=arguments.rate_bps, slow_bps=arguments.slow_bps, slow_every=arguments.slow_every)
    limited = LimitedServer(arguments.file.read_bytes(), rates)
    server = await asyncio.start_server(limited.serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await obey(limited.reset)


if __name__ == "__main__":
    asyncio.run(main())
