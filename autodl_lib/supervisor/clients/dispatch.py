"""From a line to a reply: decode strictly, authorise, call the handler, encode.

Runs as: the supervisor.  Talks to: nobody itself.
How it fails: every error is a reply with a stable code; a defect is `internal`, with its details in the
log and never in the reply.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Protocol

from autodl_lib.contract.codec import dumps
from autodl_lib.contract.errors import AutodlError, Busy, InternalError, NotAllowed, ShuttingDown
from autodl_lib.contract.replies.tasks import Saved
from autodl_lib.contract.request_lines import RequestRefused, RpcId, decode_request
from autodl_lib.contract.requests.registry import Request
from autodl_lib.contract.requests.terms import Access
from autodl_lib.contract.task import Task
from autodl_lib.supervisor.clients.access import Caller
from autodl_lib.supervisor.clients.encoding import encode_reply
from autodl_lib.supervisor.clients.fair_turns import Pace
from autodl_lib.supervisor.clients.watchers import Subscription
from autodl_lib.supervisor.handlers.context import Call, Service
from autodl_lib.supervisor.handlers.table import HANDLERS

logger = logging.getLogger(__name__)


class Stream(Protocol):
    """What of a connection a handler may use."""

    def subscribe(self, subscription: Subscription) -> None:
        """Stream until the connection closes."""

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop streaming, as if nobody had asked for it."""

    def send_tasks(self, tasks: list[Task]) -> None:
        """Send notifications."""

    def send_saved(self, saved: Saved) -> None:
        """Send one notification of many tasks."""

    def is_writable(self) -> bool:
        """Return whether the peer reads."""


@dataclass(frozen=True, slots=True)
class Started:
    """A request under way: its reply to come, and whether it changes anything."""

    reply: asyncio.Task[bytes]
    changes: bool


class Dispatcher:
    """Starts requests."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.stopping = False

    def start(self, line: bytes, caller: Caller, stream: Stream, changes: frozenset[asyncio.Task[bytes]]) -> Started:
        """Start one request; a question waits for `changes`, those of the connection that are under way."""
        loop = asyncio.get_running_loop()
        try:
            rpc_id, request = decode_request(line)
        except RequestRefused as refusal:
            return Started(loop.create_task(_done(error_reply(refusal.rpc_id, refusal.error))), changes=False)
        except MemoryError:
            return Started(loop.create_task(_done(error_reply(None, no_memory("a request")))), changes=False)
        wait_for = frozenset[asyncio.Task[bytes]]() if request.changes else changes
        reply = loop.create_task(self._answer(rpc_id, request, caller, stream, wait_for))
        return Started(reply, changes=request.changes)

    async def _answer(
        self,
        rpc_id: RpcId,
        request: Request,
        caller: Caller,
        stream: Stream,
        changes: frozenset[asyncio.Task[bytes]],
    ) -> bytes:
        try:
            if self.stopping and request.changes:
                raise ShuttingDown("the daemon is stopping; ask again when it is back")
            if request.access is Access.ADMIN and not caller.is_admin:
                raise NotAllowed(f"{request.method} is for administrators")
            if changes:
                await asyncio.wait(changes)
            pace = Pace(self.service.turns, caller.uid)
            call = Call(
                service=self.service,
                caller=caller,
                pace=pace,
                subscribe=stream.subscribe,
                unsubscribe=stream.unsubscribe,
                send_tasks=stream.send_tasks,
                send_saved=stream.send_saved,
                writable=stream.is_writable,
            )
            result = await HANDLERS[type(request)](call, request)
            return await encode_reply(rpc_id, result, pace)
        except AutodlError as error:
            if isinstance(error, InternalError):
                logger.error("%s failed: %s", request.method, error, exc_info=error, extra={"event": "defect"})
            return error_reply(rpc_id, error)
        except MemoryError:
            return error_reply(rpc_id, no_memory(request.method))
        except Exception:
            logger.exception("internal error in %s", request.method, extra={"event": "defect"})
            return error_reply(rpc_id, InternalError("internal error; the daemon's log has the details"))


def no_memory(what: str) -> Busy:
    """Log that the machine has no memory left for something, and return what its caller is told."""
    logger.error("there is no memory left for %s", what, extra={"event": "no_memory"})
    return Busy("the daemon has no memory left for this; ask for less, or again later")


def error_reply(rpc_id: RpcId | None, error: AutodlError) -> bytes:
    """Encode an error as a JSON-RPC reply."""
    body = {"code": error.rpc_code, "message": str(error), "data": {"code": error.code}}
    return dumps({"jsonrpc": "2.0", "id": rpc_id, "error": body})


async def _done(reply: bytes) -> bytes:
    return reply
