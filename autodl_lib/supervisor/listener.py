"""The daemon's socket: makes it, counts who is connected, and refuses who is too many.

Runs as: the supervisor.  Talks to: local processes.
Security: who connects is read from the kernel at once (SO_PEERCRED). The socket's mode lets every user in
under root and the owner alone otherwise; Access decides the rest.
Invariants: a socket that another daemon answers on is never taken away from it; a stale one is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from autodl_lib import __version__
from autodl_lib.contract.errors import AlreadyRunning, BadSettings, Busy
from autodl_lib.contract.task import Uid
from autodl_lib.privilege.peer import Peer, peer_of
from autodl_lib.supervisor.access import Access, Caller
from autodl_lib.supervisor.connection import Connection
from autodl_lib.supervisor.dispatch import Dispatcher

MAX_CONNECTIONS = 2000
MAX_CONNECTIONS_PER_UID = 250
MAX_PATH_BYTES = 107
"""The longest path of a Unix socket (unix(7), sun_path)."""

_BACKLOG = 512

logger = logging.getLogger(__name__)


def bind_socket(path: Path, *, for_everybody: bool) -> socket.socket:
    """Make the listening socket, replacing a stale one.

    Raises: AlreadyRunning, BadSettings.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise BadSettings(f"the socket path is over {MAX_PATH_BYTES} bytes long, which Unix sockets can't be: {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755 if for_everybody else 0o700)
        _remove_stale(path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(os.fspath(path))
            os.chmod(path, 0o666 if for_everybody else 0o600)
            listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AlreadyRunning(f"another daemon has just taken {path}") from None
        raise BadSettings(f"can't make the socket {path}: {error.strerror}") from None
    listening.setblocking(False)
    return listening


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody answers on.

    Raises: AlreadyRunning, BadSettings, OSError.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BadSettings(f"{path} is there and is no socket; name another path with --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise AlreadyRunning(f"{path} is in use, and does not answer: {error.strerror or error}") from None
    raise AlreadyRunning(f"another daemon answers on {path}")


class Listener:
    """Serves a listening socket."""

    def __init__(self, access: Access, dispatcher: Dispatcher) -> None:
        self._access = access
        self._connections: set[Connection] = set()
        self._per_uid: Counter[Uid] = Counter()
        self._server: asyncio.AbstractServer | None = None
        self.dispatcher = dispatcher
        self.version = __version__
        self.on_change: Callable[[], None] = lambda: None

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def start(self, listening: socket.socket) -> None:
        """Begin to accept."""
        # Not create_unix_server: from Python 3.13 on that one removes the path at its end, which may be systemd's.
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._new_connection, sock=listening, backlog=_BACKLOG)

    async def close(self) -> None:
        """Stop accepting, and close all connections when what they were sent is read."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close()
        await asyncio.sleep(0)
        for connection in list(self._connections):
            connection.abort()

    async def admit(self, peer: Peer) -> Caller:
        """Return who a peer is.

        Raises: NotAllowed, Busy.
        """
        if len(self._connections) > MAX_CONNECTIONS or self._per_uid[peer.uid] > MAX_CONNECTIONS_PER_UID:
            raise Busy("too many connections; close some, or try again")
        return await self._access.admit(peer)

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        if connection.peer is not None:
            self._per_uid[connection.peer.uid] -= 1
        self.on_change()

    def _new_connection(self) -> Connection:
        connection = Connection(self, self._peer_of)
        self._connections.add(connection)
        return connection

    def _peer_of(self, transport: asyncio.BaseTransport) -> Peer:
        peer = peer_of(transport.get_extra_info("socket"))
        self._per_uid[peer.uid] += 1
        return peer


def remove_socket(path: Path) -> None:
    """Remove the daemon's socket at its end."""
    with contextlib.suppress(OSError):
        path.unlink()
