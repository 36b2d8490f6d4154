"""The daemon's socket: makes it, counts who is connected, and refuses who is too many.

Runs as: the supervisor.  Talks to: local processes.
Security: who connects is read from the kernel at once (SO_PEERCRED). The socket's mode lets every user in
under root and the owner alone otherwise; Access decides the rest.
Connections are accepted a few in each round of the loop; who is too many is told so and closed before anything is
made for them. Half of what one user may have is left to others while many are connected, and a few places to root.
Invariants: a socket that another daemon answers on is never taken away from it; a stale one is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import logging
import os
import socket
import stat
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from autodl_lib import __version__
from autodl_lib.contract.errors import AlreadyRunning, BadSettings, Busy
from autodl_lib.contract.settings import AccessSection
from autodl_lib.contract.task import Uid
from autodl_lib.privilege.peer import Peer, peer_of
from autodl_lib.supervisor.clients.access import Access, Caller
from autodl_lib.supervisor.clients.connection import Connection, greeting_of
from autodl_lib.supervisor.clients.dispatch import Dispatcher, error_reply

MAX_CONNECTIONS = 2000
MAX_CONNECTIONS_PER_UID = 250
CROWDED = 1500
MAX_WHEN_CROWDED = 25
"""While so many are connected, nobody gets more than this."""

KEPT_FOR_ROOT = 20
MAX_HELD_BYTES_PER_UID = 64 * 1024 * 1024
"""What all connections of a user may hold together of requests not answered and answers not read."""

NEW_PER_S = 300.0
NEW_BURST = 1000.0
"""A user may connect so often, and so often at once; root may at any time."""

ACCEPTED_PER_ROUND = 16
_REFUSED_FOR_ONE = 8
"""To refuse so many costs as much as to let one in."""

ACCEPT_PAUSE_S = 0.5
MAX_PATH_BYTES = 107
"""The longest path of a Unix socket (unix(7), sun_path)."""

_BACKLOG = 512

_TOO_MANY = error_reply(None, Busy("too many connections; close some, or try again"))

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


def give_socket(path: Path, settings: AccessSection) -> None:
    """Give the socket the group and the mode that the configuration names, where it does.

    Raises: BadSettings.
    """
    if not settings.socket_mode and not settings.socket_group:
        return
    try:
        mode = int(settings.socket_mode, 8) if settings.socket_mode else None
        group = grp.getgrnam(settings.socket_group).gr_gid if settings.socket_group else -1
        # The group first: a mode for a group must never count for another one.
        os.chown(path, -1, group)
        if mode is not None:
            os.chmod(path, mode & 0o777)
    except ValueError:
        raise BadSettings(f"access.socket_mode is no octal number: {settings.socket_mode!r}") from None
    except KeyError:
        raise BadSettings(f"access.socket_group: there is no group {settings.socket_group!r}") from None
    except OSError as error:
        raise BadSettings(f"can't give the socket {path} its group and mode: {error.strerror}") from None


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
        self._held_bytes: Counter[Uid] = Counter()
        self._recent: dict[Uid, tuple[float, float]] = {}
        self._listening: socket.socket | None = None
        self._loop = asyncio.get_running_loop()
        self._making: set[asyncio.Task[None]] = set()
        self.dispatcher = dispatcher
        self._greeting = greeting_of(__version__)
        self.version = __version__
        self.on_change: Callable[[], None] = lambda: None

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def start(self, listening: socket.socket) -> None:
        """Begin to accept."""
        listening.setblocking(False)
        listening.listen(_BACKLOG)
        self._listening = listening
        self._loop.add_reader(listening, self._accept)

    def accept_no_more(self) -> None:
        """Leave who connects from now on to the next daemon, which finds them waiting or makes them try again."""
        if self._listening is not None:
            self._loop.remove_reader(self._listening)
            self._listening = None

    async def close(self) -> None:
        """Stop accepting, and close all connections when what they were sent is read."""
        self.accept_no_more()
        for connection in list(self._connections):
            connection.close()
        await asyncio.sleep(0)
        for connection in list(self._connections):
            connection.abort()

    async def admit(self, peer: Peer) -> Caller:
        """Return who a peer is.

        Raises: NotAllowed.
        """
        return await self._access.admit(peer)

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        _count(self._per_uid, connection.peer.uid, -1)
        self.on_change()

    def hold(self, peer: Peer, change_bytes: int) -> bool:
        """So many bytes more are kept for a peer; return whether that is too much for their user."""
        _count(self._held_bytes, peer.uid, change_bytes)
        return self._held_bytes[peer.uid] > MAX_HELD_BYTES_PER_UID

    def _accept(self) -> None:
        """Take a few of those that wait; the rest has its turn when everybody else had theirs."""
        left = ACCEPTED_PER_ROUND * _REFUSED_FOR_ONE
        while left > 0 and self._listening is not None:
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                self._pause(error)
                return
            accepted.setblocking(False)
            try:
                peer = peer_of(accepted)
            except OSError:
                accepted.close()
                continue
            if self._is_full(peer.uid) or self._comes_too_often(peer.uid):
                _refuse(accepted, self._greeting)
                left -= 1
            else:
                self._make(accepted, peer)
                left -= _REFUSED_FOR_ONE

    def _is_full(self, uid: Uid) -> bool:
        connected = len(self._connections)
        if connected >= MAX_CONNECTIONS + (KEPT_FOR_ROOT if uid == 0 else 0):
            return True
        most = MAX_WHEN_CROWDED if connected >= CROWDED and uid != 0 else MAX_CONNECTIONS_PER_UID
        return self._per_uid[uid] >= most

    def _comes_too_often(self, uid: Uid) -> bool:
        """Return whether a user has made more connections lately than anyone needs: each costs us something."""
        if uid == 0:
            return False
        now = time.monotonic()
        if len(self._recent) >= MAX_CONNECTIONS and uid not in self._recent:
            self._recent.clear()
        left, at = self._recent.get(uid, (NEW_BURST, now))
        left = min(NEW_BURST, left + (now - at) * NEW_PER_S)
        self._recent[uid] = (max(0.0, left - 1), now)
        return left < 1

    def _make(self, accepted: socket.socket, peer: Peer) -> None:
        connection = Connection(self, peer)
        self._connections.add(connection)
        self._per_uid[peer.uid] += 1

        async def make() -> None:
            try:
                await self._loop.connect_accepted_socket(lambda: connection, accepted)
            except OSError:
                accepted.close()
                self.closed(connection)

        task = self._loop.create_task(make())
        self._making.add(task)
        task.add_done_callback(self._making.discard)

    def _pause(self, error: OSError) -> None:
        """No file descriptors or memory are left: who waits goes on waiting, and the loop does not spin."""
        logger.error("can't accept connections: %s", error.strerror, extra={"event": "accept_failed"})
        if self._listening is not None:
            self._loop.remove_reader(self._listening)
            self._loop.call_later(ACCEPT_PAUSE_S, self._accept_again)

    def _accept_again(self) -> None:
        if self._listening is not None:
            self._loop.add_reader(self._listening, self._accept)


def _refuse(accepted: socket.socket, greeting: bytes) -> None:
    """Say that there are too many, as far as the peer's buffer takes it, and close."""
    with contextlib.suppress(OSError):
        accepted.send(greeting + _TOO_MANY, socket.MSG_NOSIGNAL)
    accepted.close()


def _count(counter: Counter[Uid], uid: Uid, change: int) -> None:
    """Count more or less, and forget what is counted no more."""
    counter[uid] += change
    if not counter[uid]:
        del counter[uid]


def identity_of_socket(path: Path) -> tuple[int, int] | None:
    """Return what tells the socket that is there from any other."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def remove_socket(path: Path, identity: tuple[int, int] | None) -> None:
    """Remove the daemon's socket at its end, unless another one is in its place."""
    with contextlib.suppress(OSError):
        if identity_of_socket(path) == identity:
            path.unlink()
