"""What each request means: admits it, asks the daemon, makes the answer. Knows nothing of sockets.

Runs as: an unprivileged account.  Talks to: the daemon, through the link.
Security: the token first, then Host and Origin, then the path; a body is read after all of them. What goes to the
daemon is what was decoded here, never a caller's bytes.
How it fails: an error of the daemon is an answer with its status; a defect is a 500, with its details in the log alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from autodl_lib.contract.codec import dumps
from autodl_lib.contract.errors import AutodlError, InternalError, InvalidRequest, NotAllowed
from autodl_lib.contract.request_lines import RequestRefused, RpcId, decode_request
from autodl_lib.contract.requests.adding import Add
from autodl_lib.contract.requests.following import Watch
from autodl_lib.contract.requests.registry import Request
from autodl_lib.http_shim.daemon_link import MAX_STREAMS, DaemonLink
from autodl_lib.http_shim.events import CONTENT_TYPE, EventStream
from autodl_lib.http_shim.folders import Folders
from autodl_lib.http_shim.guard import PREFLIGHT_HEADERS, Guard
from autodl_lib.http_shim.messages import Answer, Head, error_answer, result_answer, retry_headers
from autodl_lib.http_shim.query import request_from_query
from autodl_lib.http_shim.refusals import too_many
from autodl_lib.http_shim.routes import Action, Capabilities, Read, Rpc, action_of

DEFECT = "internal error; the log of `autodl http` has the details"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What callers with the token may ask for."""

    folders: Folders
    read_only: bool = False


class Application:
    """Answers requests."""

    def __init__(self, guard: Guard, policy: Policy, link: DaemonLink) -> None:
        self.guard = guard
        self._policy = policy
        self._link = link
        self._streams = 0

    async def answer(self, action: Action, body: bytes) -> Answer | EventStream:
        """Answer an admitted request.

        Raises: Refusal.
        """
        match action:
            case Capabilities(allowed=allowed):
                return Answer(status=HTTPStatus.NO_CONTENT, headers=(("Allow", allowed),))
            case Rpc():
                return await self._link.run(lambda: self._rpc(body))
            case Read():
                return await self._read(action)

    async def _read(self, action: Read) -> Answer | EventStream:
        try:
            request = request_from_query(action.request_type, action.query, action.given)
            if isinstance(request, Watch):
                if action.is_head:
                    return Answer(status=HTTPStatus.OK, content_type=CONTENT_TYPE)
                return await self._watch(request)
            return result_answer(await self._link.run(lambda: self._link.call(request)))
        except AutodlError as error:
            return error_answer(error)

    async def _watch(self, request: Watch) -> EventStream:
        if self._streams >= MAX_STREAMS:
            raise too_many()
        self._streams += 1
        # An event is a task: `brief` would be less than that.
        stream = EventStream(self._link, replace(request, brief=False), self._stream_ended)
        try:
            await stream.open()
        except BaseException:
            stream.close()
            raise
        return stream

    def _stream_ended(self) -> None:
        self._streams -= 1

    def _rpc(self, body: bytes) -> Answer:
        """Answer one JSON-RPC request, in the words of the socket; on a thread."""
        try:
            rpc_id, request = decode_request(body)
        except RequestRefused as refused:
            return _rpc_error(refused.rpc_id, refused.error)
        try:
            result = self._link.call(self._allowed(request))
        except AutodlError as error:
            return _rpc_error(rpc_id, error)
        except Exception:
            logger.exception("internal error in %s", request.method)
            return _rpc_error(rpc_id, InternalError(DEFECT))
        return Answer(status=HTTPStatus.OK, body=dumps({"jsonrpc": "2.0", "id": rpc_id, "result": result}))

    def _allowed(self, request: Request) -> Request:
        if self._policy.read_only and request.changes:
            raise NotAllowed(f"{request.method} changes something, and `autodl http` was started with --read-only")
        if isinstance(request, Watch):
            raise InvalidRequest("watch is a stream: by HTTP it is GET /events")
        return self._policy.folders.keep(request) if isinstance(request, Add) else request


def admitted(guard: Guard, head: Head) -> Action:
    """Return what a caller with the token asks for.

    Raises: Refusal.
    """
    guard.check_page(head)
    return action_of(head)


def preflight_answer() -> Answer:
    """Tell a browser what pages of an allowed origin may send."""
    return Answer(status=HTTPStatus.NO_CONTENT, headers=PREFLIGHT_HEADERS)


def _rpc_error(rpc_id: RpcId | None, error: AutodlError) -> Answer:
    body: dict[str, Any] = {"code": error.rpc_code, "message": str(error), "data": {"code": error.code}}
    document = dumps({"jsonrpc": "2.0", "id": rpc_id, "error": body})
    return Answer(status=error.http_status, body=document, headers=retry_headers(error))
