"""HTTP/1.1 on one socket: a request's head and body in, answers out, each within a size and a time.

Runs as: an unprivileged account.  Talks to: an HTTP client: hostile.
Security: h11 parses, strictly. A request is read when the one before it is answered, so pipelining costs no memory.
How it fails: Refusal with what to answer; ClientGone, OSError or TimeoutError where there is nobody to answer to.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from http import HTTPStatus

import h11

from autodl_lib.http_shim.messages import PLAIN_HEADERS, Answer, Head
from autodl_lib.http_shim.refusals import Headers, bad_http, too_slow

MAX_HEAD_BYTES = 16 * 1024
MAX_HEADERS = 100
PIECE_BYTES = 64 * 1024
_HEAD_PIECE_BYTES = 4096
_LINGER_S = 2.0
_LINGER_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a client may take."""

    head_s: float = 10.0
    """For a request's first line and headers: from their first byte on, or from the begin of the connection."""
    idle_s: float = 60.0
    """Between two requests."""
    body_s: float = 60.0
    piece_s: float = 30.0
    """To read 64 KiB of an answer."""

    @classmethod
    def of(cls, seconds: float) -> Patience:
        """Return the same patience for all."""
        return cls(head_s=seconds, idle_s=seconds, body_s=seconds, piece_s=seconds)


class ClientGone(Exception):
    """There is nobody to answer to."""


class ClientStream:
    """One connection; requests and answers take turns."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: Patience) -> None:
        self._reader = reader
        self._writer = writer
        self._patience = patience
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._is_head = False
        self._to_send = bytearray()
        # drain() then waits until all is sent, so that the time for it can be bounded.
        writer.transport.set_write_buffer_limits(high=0)

    def drop(self) -> None:
        """End it at once."""
        self._writer.transport.abort()

    # --- in ---

    async def wait_for_more(self) -> None:
        """Wait for the begin of another request.

        Raises: ClientGone, OSError.
        """
        self._http.start_next_cycle()
        if not self._http.trailing_data[0]:
            try:
                async with asyncio.timeout(self._patience.idle_s):
                    await self._receive(_HEAD_PIECE_BYTES)
            except TimeoutError:
                raise ClientGone from None

    async def read_head(self) -> Head:
        """Read a request's first line and headers.

        Raises: Refusal, ClientGone, OSError.
        """
        try:
            async with asyncio.timeout(self._patience.head_s):
                event = await self._next_event(_HEAD_PIECE_BYTES)
        except TimeoutError:
            raise too_slow() from None
        if not isinstance(event, h11.Request):
            raise ClientGone
        self._is_head = event.method == b"HEAD"
        headers = list(event.headers)
        size = sum(len(name) + len(value) + len(b": \r\n") for name, value in headers) + len(event.target)
        if size > MAX_HEAD_BYTES or len(headers) > MAX_HEADERS:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise bad_http(status, f"a request has {MAX_HEADERS} headers and a head of {MAX_HEAD_BYTES} bytes at most")
        return Head(
            method=event.method.decode("ascii"),
            target=event.target.decode("ascii"),
            headers=tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in headers),
        )

    async def read_body(self) -> bytes:
        """Read the body, whose length was found to be within its limit.

        Raises: Refusal, ClientGone, OSError.
        """
        if self._http.they_are_waiting_for_100_continue:
            self._put(h11.InformationalResponse(status_code=100, headers=[]))
            await self._flush()
        body = bytearray()
        try:
            async with asyncio.timeout(self._patience.body_s):
                while isinstance(event := await self._next_event(PIECE_BYTES), h11.Data):
                    body += event.data
        except TimeoutError:
            raise too_slow() from None
        if not isinstance(event, h11.EndOfMessage):
            raise ClientGone
        return bytes(body)

    async def until_gone(self) -> None:
        """Wait until the client hangs up; whatever else it says is not heard."""
        with contextlib.suppress(OSError):
            while await self._reader.read(PIECE_BYTES):
                pass

    # --- out ---

    async def send(self, answer: Answer, more: Headers, *, close: bool) -> bool:
        """Send a whole answer; return whether another request may follow.

        Raises: TimeoutError, OSError.
        """
        headers = list(answer.headers)
        if answer.status != HTTPStatus.NO_CONTENT:
            headers += [("Content-Type", answer.content_type), ("Content-Length", str(len(answer.body)))]
        # What is left of a request that is refused is not read: it could be without end.
        close = close or not self._is_read()
        self._begin(answer.status, (*headers, *more), close=close)
        await self.send_piece(answer.body)
        await self.end_stream()
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def begin_stream(self, content_type: str, more: Headers) -> None:
        """Begin an answer of unknown length, the last one of the connection.

        Raises: TimeoutError, OSError.
        """
        self._begin(HTTPStatus.OK, (("Content-Type", content_type), *more), close=True)
        await self._flush()

    async def send_piece(self, data: bytes) -> None:
        """Send a piece of an answer, as fast as the client takes it; none of the answer to HEAD.

        Raises: TimeoutError, OSError.
        """
        if not self._is_head:
            for start in range(0, len(data), PIECE_BYTES):
                self._put(h11.Data(data=data[start : start + PIECE_BYTES]))
                if len(self._to_send) >= PIECE_BYTES:
                    await self._flush()

    async def send_event(self, data: bytes) -> None:
        """Send a piece of a stream at once.

        Raises: TimeoutError, OSError.
        """
        await self.send_piece(data)
        await self._flush()

    async def end_stream(self) -> None:
        """Say that the answer is whole.

        Raises: TimeoutError, OSError.
        """
        self._put(h11.EndOfMessage())
        await self._flush()

    async def linger(self) -> None:
        """Close in a way in which the client still reads the answer, though it may be sending."""
        with contextlib.suppress(OSError, TimeoutError):
            self._writer.write_eof()
            async with asyncio.timeout(_LINGER_S):
                left = _LINGER_BYTES
                while left > 0 and (data := await self._reader.read(PIECE_BYTES)):
                    left -= len(data)

    def _begin(self, status: int, headers: Headers, *, close: bool) -> None:
        closing = [("Connection", "close")] if close else []
        event = h11.Response(
            status_code=status,
            headers=[*PLAIN_HEADERS, *headers, *closing],
            reason=HTTPStatus(status).phrase.encode("ascii"),
        )
        self._put(event)

    def _put(self, event: h11.Event) -> None:
        self._to_send += self._http.send(event) or b""

    async def _flush(self) -> None:
        """Send in one what has come together: small answers are one packet."""
        self._writer.write(bytes(self._to_send))
        self._to_send.clear()
        async with asyncio.timeout(self._patience.piece_s):
            await self._writer.drain()

    def _is_read(self) -> bool:
        """Tell whether all of the request has been read, taking an end that is here already."""
        if self._http.their_state is h11.SEND_BODY:
            with contextlib.suppress(h11.RemoteProtocolError):
                self._http.next_event()
        return self._http.their_state not in (h11.IDLE, h11.SEND_BODY, h11.ERROR)

    async def _next_event(self, piece_bytes: int) -> object:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                if self._reader.at_eof():
                    raise ClientGone from None
                raise bad_http(error.error_status_hint, f"not HTTP/1.1: {error}") from None
            except ValueError:  # of h11 0.14, from a length with thousands of digits
                raise bad_http(HTTPStatus.BAD_REQUEST, "not HTTP/1.1: a number is out of range") from None
            if event is not h11.NEED_DATA:
                return event
            await self._receive(piece_bytes)

    async def _receive(self, piece_bytes: int) -> None:
        self._http.receive_data(await self._reader.read(piece_bytes))
