"""One connection of an HTTP client: requests one after the other, until it goes, errs or is dropped.

Runs as: an unprivileged account.  Talks to: an HTTP client: hostile.
Security: a body is read of callers with the token alone, and whoever has not shown it is answered once.
Invariants: an answer that a client does not read is given up; a client that is refused gets to read why.
"""

from __future__ import annotations

import asyncio
import logging

from autodl_lib.contract.codec import MAX_LINE_BYTES
from autodl_lib.contract.errors import InternalError
from autodl_lib.http_shim.application import DEFECT, Application, admitted, preflight_answer
from autodl_lib.http_shim.client_stream import ClientGone, ClientStream
from autodl_lib.http_shim.events import CONTENT_TYPE, EventStream
from autodl_lib.http_shim.messages import Head, error_answer, refusal_answer
from autodl_lib.http_shim.refusals import Headers, Refusal, no_length, too_long, unwanted_body
from autodl_lib.http_shim.refused_log import RefusedLog
from autodl_lib.http_shim.routes import Action, Rpc
from autodl_lib.http_shim.server import Phase

logger = logging.getLogger(__name__)


class HttpConnection:
    """Serves one client."""

    def __init__(self, stream: ClientStream, application: Application, refused: RefusedLog) -> None:
        self._stream = stream
        self._application = application
        self._refused = refused
        self.phase = Phase.UNPROVEN

    async def serve(self) -> None:
        """Answer requests until the connection is done."""
        try:
            while await self._exchange():
                await self._stream.wait_for_more()
            await self._stream.linger()
        except (ClientGone, OSError, TimeoutError):
            pass
        except Exception:
            logger.exception("internal error on a connection")
        finally:
            self.drop()

    def drop(self) -> None:
        """End it at once."""
        self._stream.drop()

    async def _exchange(self) -> bool:
        """Read and answer one request; return whether another may follow."""
        cors: Headers = ()
        try:
            head = await self._stream.read_head()
            guard = self._application.guard
            cors = guard.origin_headers(head)
            if guard.is_preflight(head):
                return await self._stream.send(preflight_answer(), cors, close=True)
            guard.check_token(head)
            self.phase = Phase.IDLE
            action = admitted(guard, head)
            _check_length(head, action)
            body = await self._stream.read_body()
            self.phase = Phase.BUSY
            return await self._answer(action, body, cors)
        except Refusal as refusal:
            self._refused.count(refusal.code)
            # Without the token, the next request costs the caller a new connection.
            is_unproven = self.phase is Phase.UNPROVEN
            return await self._stream.send(refusal_answer(refusal), cors, close=is_unproven)
        finally:
            if self.phase is Phase.BUSY:
                self.phase = Phase.IDLE

    async def _answer(self, action: Action, body: bytes, cors: Headers) -> bool:
        try:
            answer = await self._application.answer(action, body)
        except (Refusal, asyncio.CancelledError):
            raise
        except Exception:
            logger.exception("internal error in a request")
            answer = error_answer(InternalError(DEFECT))
        if isinstance(answer, EventStream):
            await self._pass_on(answer, cors)
            return False
        return await self._stream.send(answer, cors, close=False)

    async def _pass_on(self, events: EventStream, cors: Headers) -> None:
        """Send events for as long as the client is there and the daemon has some."""
        self.phase = Phase.STREAMING
        gone = asyncio.create_task(self._stream.until_gone())
        try:
            await self._stream.begin_stream(CONTENT_TYPE, cors)
            async for piece in events.pieces():
                if gone.done():
                    return
                if piece:
                    await self._stream.send_event(piece)
            await self._stream.end_stream()
        finally:
            events.close()
            gone.cancel()
            # One at a time may read: this one must have ended before what is left is read away.
            await asyncio.wait([gone])


def _check_length(head: Head, action: Action) -> None:
    """Refuse a body that is too long, of unknown length, or not wanted.

    Raises: Refusal.
    """
    length = head.one("content-length")
    is_chunked = any(name == "transfer-encoding" for name, _ in head.headers)
    if not isinstance(action, Rpc):
        if is_chunked or int(length or 0):
            raise unwanted_body()
    elif is_chunked or length is None:
        raise no_length()
    elif int(length) > MAX_LINE_BYTES:
        raise too_long(MAX_LINE_BYTES)
