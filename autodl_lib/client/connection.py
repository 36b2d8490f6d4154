"""One connection to a daemon: greeting, calls, pipelined calls, the stream of `watch`.

Runs as: the caller.  Talks to: the daemon's Unix socket.
Invariants: a line from the socket is bounded and checked before it is used; whatever answers there,
the caller sees an AutodlError. Results are plain JSON objects, tasks are contract.task.Task.
"""

from __future__ import annotations

import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from autodl_lib.client.results import decoded, task_from
from autodl_lib.contract.codec import MAX_LINE_BYTES, PROTOCOL_VERSION, dumps, loads, to_json
from autodl_lib.contract.errors import (
    AutodlError,
    InvalidParams,
    NoDaemon,
    NotAllowed,
    ParseError,
    ProtocolMismatch,
    TimedOut,
    error_from_code,
)

if TYPE_CHECKING:
    from autodl_lib.contract.replies.tasks import Watching
    from autodl_lib.contract.requests.following import Watch
    from autodl_lib.contract.requests.registry import Request
    from autodl_lib.contract.task import Task

GREETING_TIMEOUT_S = 20.0
REPLY_TIMEOUT_S = 300.0
MAX_REPLY_BYTES = 64 * 1024 * 1024
PIPELINED = 3
"""Requests on their way at once; so few that their replies fit the socket's buffer while we still send."""

_RECEIVE_BYTES = 256 * 1024


class NobodyListens(NoDaemon):
    """There is no socket, or nobody accepts connections on it."""


class ConnectionLost(NoDaemon):
    """The daemon closed the connection while something was expected of it."""


class Connection:
    """A greeted connection; use it as a context manager."""

    def __init__(self, path: str) -> None:
        """Connect and check the greeting.

        Raises: NobodyListens, ConnectionLost, NotAllowed, ProtocolMismatch.
        """
        self.path = path
        self._buffer = bytearray()
        self._last_id = 0
        self._socket = _connect(path)
        try:
            self._check_greeting()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def is_quiet(self) -> bool:
        """Tell whether nothing has come unasked, such as the end: then it can be used again."""
        if self._buffer:
            return False
        try:
            self._socket.settimeout(0)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def call(self, request: Request) -> dict[str, Any]:
        """Send one request and return its result.

        Raises: the error that the daemon answered with, ConnectionLost, TimedOut, ProtocolMismatch.
        """
        [answer] = self.call_all([request])
        if isinstance(answer, AutodlError):
            raise answer
        return answer

    def call_all(self, requests: Iterable[Request]) -> Iterator[dict[str, Any] | AutodlError]:
        """Send requests, a few ahead of their answers, and yield in order the results, or the errors that refuse them.

        Before a request is asked for, what was answered is yielded, so `requests` may end because of it.
        Raises: ConnectionLost, TimedOut, ProtocolMismatch, what the daemon says of the connection; what has not been
        answered then may have been done.
        """
        waiting: deque[int | InvalidParams] = deque()
        for request in requests:
            waiting.append(self._send_or_refuse(request))
            if len(waiting) == PIPELINED:
                yield self._answer_to(waiting.popleft())
        while waiting:
            yield self._answer_to(waiting.popleft())

    def watch(self, request: Watch) -> TaskStream:
        """Begin to stream tasks; the connection serves nothing else from then on."""
        return TaskStream(self, self._send(request))

    def read_document(self, timeout_s: float) -> dict[str, Any] | None:
        """Return the next JSON object, or None where none came in time.

        Raises: ConnectionLost, ProtocolMismatch.
        """
        line = self._read_line(timeout_s)
        if line is None:
            return None
        try:
            document = loads(line)
        except ParseError:
            document = None
        if not isinstance(document, dict):
            raise self._mismatch()
        return document

    def result_in(self, document: dict[str, Any], rpc_id: int) -> dict[str, Any]:
        """Return the result that a reply to `rpc_id` carries.

        Raises: the error that it carries instead, ProtocolMismatch.
        """
        error = _error_in(document)
        if error is not None and document.get("id") in (rpc_id, None):
            raise error
        result = document.get("result")
        if document.get("id") != rpc_id or not isinstance(result, dict):
            raise self._mismatch()
        return result

    def _check_greeting(self) -> None:
        document = self.read_document(GREETING_TIMEOUT_S)
        if document is None:
            raise NoDaemon(f"the daemon on {self.path} does not answer; look at its log, or restart it")
        if "error" in document:
            # Refused at the door: no account, not allowed here, too many connections.
            self.result_in(document, 0)
        params = document.get("params")
        if document.get("method") != "hello" or not isinstance(params, dict):
            raise self._mismatch()
        if params.get("protocol") != PROTOCOL_VERSION:
            raise ProtocolMismatch(
                f"the daemon on {self.path} is version {params.get('version')!s:.40} and speaks protocol"
                f" {params.get('protocol')!s:.40}, this program speaks {PROTOCOL_VERSION}:"
                " install the same version of both"
            )
        if b"\n" in self._buffer:
            # Refused for who the caller is: that comes right behind the greeting, before anything is asked.
            self.result_in(self.read_document(0) or {}, 0)

    def _send(self, request: Request) -> int:
        self._last_id += 1
        line = dumps({"jsonrpc": "2.0", "id": self._last_id, "method": request.method, "params": to_json(request)})
        if len(line) > MAX_LINE_BYTES:
            raise InvalidParams(f"the request is over the limit of {MAX_LINE_BYTES} bytes: ask for less at once")
        self._socket.settimeout(REPLY_TIMEOUT_S)
        try:
            self._socket.sendall(line)
        except TimeoutError:
            raise TimedOut(f"the daemon on {self.path} has taken no request for {REPLY_TIMEOUT_S:g} s") from None
        except OSError:
            # It may have said why before it hung up; that is read in place of the reply.
            pass
        return self._last_id

    def _send_or_refuse(self, request: Request) -> int | InvalidParams:
        """Send a request; one that is too long is refused here, when its turn to be answered has come."""
        try:
            return self._send(request)
        except InvalidParams as error:
            return error

    def _answer_to(self, sent: int | InvalidParams) -> dict[str, Any] | AutodlError:
        if isinstance(sent, InvalidParams):
            return sent
        document = self.read_document(REPLY_TIMEOUT_S)
        if document is None:
            raise TimedOut(f"the daemon on {self.path} has not answered for {REPLY_TIMEOUT_S:g} s")
        refusal = _error_in(document)
        # Without an id it is about the connection, and no answer to anything.
        return refusal if refusal is not None and document.get("id") == sent else self.result_in(document, sent)

    def _read_line(self, timeout_s: float) -> bytes | None:
        deadline = time.monotonic() + timeout_s
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > MAX_REPLY_BYTES:
                raise self._mismatch()
            # With no time left it does not wait, and still has what is here already.
            self._socket.settimeout(max(deadline - time.monotonic(), 0))
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except (TimeoutError, BlockingIOError):
                return None
            except OSError as error:
                raise ConnectionLost(f"lost the connection to the daemon on {self.path}: {error.strerror}") from None
            if not data:
                raise ConnectionLost(f"the daemon on {self.path} closed the connection; ask again")
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _mismatch(self) -> ProtocolMismatch:
        return ProtocolMismatch(f"what answers on {self.path} is no autodl daemon, or a defective one")


class TaskStream:
    """The answers to one `watch`."""

    def __init__(self, connection: Connection, rpc_id: int) -> None:
        self._connection = connection
        self._rpc_id = rpc_id
        self.watching: Watching | None = None
        """The reply, once it has come: all tasks have been shown as they were."""
        self.saved: dict[int, str] = {}
        """The finished tasks that a brief watch has told of, with the paths of their files; it is the reader's."""

    def next_tasks(self, timeout_s: float) -> list[Task]:
        """Return what has changed, oldest first: at least one task, unless the time is over, the reply or `saved` came.

        Raises: the error that the daemon answered with, ConnectionLost, ProtocolMismatch.
        """
        document = self._connection.read_document(timeout_s)
        tasks = []
        while document is not None:
            method = document.get("method")
            if method == "saved":
                self._take_saved(document)
                break
            if method != "task":
                self.watching = self._reply(document)
                break
            tasks.append(task_from(document.get("params")))
            # What has arrived already belongs to the same picture.
            document = self._connection.read_document(0) if len(tasks) < 10_000 else None
        return tasks

    def _take_saved(self, document: dict[str, Any]) -> None:
        from autodl_lib.contract.replies.tasks import Saved

        saved = decoded(Saved, document.get("params"))
        self.saved.update(zip(saved.ids, saved.dests, strict=False))

    def _reply(self, document: dict[str, Any]) -> Watching:
        from autodl_lib.contract.replies.tasks import Watching

        if self.watching is not None:
            raise ProtocolMismatch("the daemon answered `watch` twice")
        return decoded(Watching, self._connection.result_in(document, self._rpc_id))


def _error_in(document: dict[str, Any]) -> AutodlError | None:
    error = document.get("error")
    if not isinstance(error, dict):
        return None
    data = error.get("data")
    code = data.get("code") if isinstance(data, dict) else None
    return error_from_code(str(code), str(error.get("message", "the daemon gave no reason")))


def _connect(path: str) -> socket.socket:
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Not settimeout(): a non-blocking connect fails with EAGAIN when many clients come at once.
        whole = int(GREETING_TIMEOUT_S)
        connecting.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", whole, 0))
        connecting.connect(path)
    except OSError as error:
        connecting.close()
        raise _why_not(path, error) from None
    except BaseException:
        connecting.close()
        raise
    return connecting


def _why_not(path: str, error: OSError) -> AutodlError:
    match error:
        case FileNotFoundError() | ConnectionRefusedError() | NotADirectoryError():
            return NobodyListens(f"no daemon answers on {path}: {error.strerror}")
        case PermissionError():
            return NotAllowed(f"you may not use the socket {path}: {error.strerror}")
        case BlockingIOError():
            return NoDaemon(f"the daemon on {path} does not answer; look at its log, or restart it")
        case ConnectionError():
            return ConnectionLost(f"the daemon on {path} closed the connection")
        case _:
            return NoDaemon(f"can't connect to {path}: {error.strerror}")
