"""The queue that workers report to: a multiprocessing Manager in an unprivileged process of its own.

Runs as: `autodl` or `nobody` under a root daemon (the process), root (the supervisor's end of it).
Talks to: workers (untrusted), the supervisor.
Security: the wire is xmlrpclib's XML, never pickle, which would let a worker run code in whoever reads.
The socket is bound before the drop in a folder that only the supervisor's user enters, so workers
connect before their own drop. `drain` takes a secret that workers don't know; `shutdown` and the rest of
a Manager's own functions are not served. What comes out is text: who reads it decodes strictly.
How it fails: the supervisor sees the process end (pidfd) or `drain` fail, and starts another.
"""

from __future__ import annotations

import collections
import contextlib
import hmac
import os
import resource
import signal
import socket
import sys
import threading
import time
import xmlrpc.client
from multiprocessing.connection import Client, Connection
from multiprocessing.managers import BaseManager, Server
from typing import Any, NoReturn

from autodl_lib.contract.worker_messages import MAX_REPORT_BYTES
from autodl_lib.privilege.first_code import drop_manager, end_with_supervisor, keep_only, leave_session
from autodl_lib.privilege.limits import MANAGER_FILES, limit_files, stand_back

QUEUE_NAME = "reports"
DRAIN_TIMEOUT_S = 3600.0
MAX_DRAINED = 256

_MAX_MEMORY_BYTES = 2 * 1024 * 1024 * 1024
_MAX_WAITING_BYTES = 32 * 1024 * 1024
_TEXT_OVERHEAD_BYTES = 100
_RATE_BPS = 4 * 1024 * 1024
_BURST_BYTES = 16 * 1024 * 1024
_COST_OF_A_TEXT_BYTES = 4096
_MAX_DRAIN_BYTES = 2 * MAX_DRAINED * MAX_REPORT_BYTES


class Reports:
    """What is put waits here, in order, until it is drained; a full queue makes `put` wait, and so does babbling."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._texts: collections.deque[str] = collections.deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._connection = threading.local()

    def put(self, text: str) -> None:
        """Take one worker's text."""
        if not isinstance(text, str) or len(text) > MAX_REPORT_BYTES:
            raise ValueError("not a report")
        self._slow_down(_COST_OF_A_TEXT_BYTES + len(text))
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < _MAX_WAITING_BYTES)
            self._texts.append(text)
            self._bytes += len(text) + _TEXT_OVERHEAD_BYTES
            self._changed.notify_all()

    def drain(self, secret: str, timeout_s: float) -> list[str]:
        """Return what waits, at most MAX_DRAINED texts; wait for the first one up to `timeout_s` seconds."""
        if not isinstance(secret, str) or not hmac.compare_digest(secret, self._secret):
            raise PermissionError("not for you")
        with self._changed:
            self._changed.wait_for(lambda: bool(self._texts), timeout_s)
            drained = [self._texts.popleft() for _ in range(min(len(self._texts), MAX_DRAINED))]
            self._bytes -= sum(len(text) + _TEXT_OVERHEAD_BYTES for text in drained)
            self._changed.notify_all()
            return drained

    def _slow_down(self, cost_bytes: int) -> None:
        """Let a worker that babbles wait, before the supervisor has to read it all; each has a thread of its own."""
        now, mine = time.monotonic(), self._connection
        earned = (now - getattr(mine, "at_mono", now)) * _RATE_BPS
        mine.left_bytes = min(_BURST_BYTES, getattr(mine, "left_bytes", _BURST_BYTES) + earned) - cost_bytes
        mine.at_mono = now
        if mine.left_bytes < 0:
            time.sleep(-mine.left_bytes / _RATE_BPS)


class ReportServer(Server):
    """A Manager's server that serves nothing but creating and using registered objects."""

    listener: Any
    fallback_mapping: dict[str, Any] = {}
    public = ["create", "accept_connection", "get_methods", "dummy", "incref", "decref"]

    def serve_forever(self) -> NoReturn:
        """Serve until killed; a Manager's own server wakes up each second, to see whether it is to stop."""
        self.stop_event = threading.Event()
        while True:
            with contextlib.suppress(OSError):
                self._serve(self.listener.accept())

    def _serve(self, connection: Connection) -> None:
        """Have a thread serve a connection; where there are none left, who connected comes again."""
        try:
            threading.Thread(target=self.handle_request, args=(connection,), daemon=True).start()
        except RuntimeError as error:
            _say(str(error))
            connection.close()


def _say(words: str) -> None:
    print(f"autodl: report queue: {words}", file=sys.stderr, flush=True)


class ReportManager(BaseManager):
    """The Manager; its server speaks XML."""

    _registry: dict[str, Any]

    @classmethod
    def registry(cls) -> dict[str, Any]:
        """Return what is registered, in the form that a server takes."""
        return cls._registry


def serve_reports(address: str, key: bytes, secret: str, ready: Connection) -> None:
    """Bind `address`, drop privileges, say so on `ready`, and serve until killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    leave_session(join_workers=False)
    stand_back(0)
    limit_files(MANAGER_FILES)
    resource.setrlimit(resource.RLIMIT_DATA, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    keep_only(ready.fileno(), end_with_supervisor())
    queue = Reports(secret)
    ReportManager.register(QUEUE_NAME, callable=lambda: queue, exposed=("put", "drain"))
    try:
        # Not by get_server(), which makes a plain Server that serves all of a Manager's own functions.
        server = ReportServer(ReportManager.registry(), address, key, "xmlrpclib")
    except OSError as error:
        _say(f"its socket can't be made in the state folder: {error.strerror}")
        os._exit(1)
    drop_manager()
    try:
        ready.send_bytes(b"ready")
    except OSError:
        os._exit(0)  # the supervisor has gone
    ready.close()
    server.serve_forever()


class QueueClient:
    """The supervisor's end: creates the queue's object, then drains it; blocking, one thread only."""

    def __init__(self, address: str, key: bytes, secret: str) -> None:
        """Connect to a manager that is ready.

        Raises: OSError, EOFError.
        """
        self._secret = secret
        with Client(address, family="AF_UNIX", authkey=key) as connection:
            created = _request(connection, (None, "create", (QUEUE_NAME,), {}))
        self.ident = str(created[0])
        self._connection = self._connect(address, key)
        self._putting = self._connect(address, key)
        self._put_lock = threading.Lock()

    def drain(self) -> list[str]:
        """Return the texts that wait, at once or when the first one comes; may be empty after an hour.

        Raises: OSError, EOFError when the manager is gone or talks nonsense.
        """
        texts = _request(self._connection, (self.ident, "drain", (self._secret, DRAIN_TIMEOUT_S), {}))
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise OSError("the report queue answered nonsense")
        return texts

    def put(self, text: str) -> None:
        """Put a text of the supervisor's own, to see it come out behind all that was put before; any thread.

        Raises: OSError, EOFError.
        """
        with self._put_lock:
            _request(self._putting, (self.ident, "put", (text,), {}))

    def close(self) -> None:
        """End a `drain` that waits on another thread, and close."""
        try:
            peer = socket.socket(fileno=os.dup(self._connection.fileno()))
            peer.shutdown(socket.SHUT_RDWR)
            peer.close()
        except OSError:
            pass

    @staticmethod
    def _connect(address: str, key: bytes) -> Connection:
        connection = Client(address, family="AF_UNIX", authkey=key)
        _request(connection, (None, "accept_connection", ("supervisor",), {}))
        return connection


def _request(connection: Connection, request: tuple[Any, ...]) -> Any:
    connection.send_bytes(xmlrpc.client.dumps((request,), None, None, None, True).encode("ascii"))
    try:
        reply = xmlrpc.client.loads(connection.recv_bytes(_MAX_DRAIN_BYTES))[0][0]
    except (OSError, EOFError):
        raise
    except Exception as error:  # expat, xmlrpc and codecs each have their own
        raise OSError(f"the report queue answered nonsense: {error}") from error
    if not isinstance(reply, list) or len(reply) != 2 or reply[0] != "#RETURN":
        raise OSError("the report queue refused a request")
    return reply[1]
