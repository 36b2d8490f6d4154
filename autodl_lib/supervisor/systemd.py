"""What systemd and its services tell each other: readiness, status, the watchdog, sockets that it opened.

Runs as: the supervisor.  Talks to: the service manager, through $NOTIFY_SOCKET and inherited descriptors.
Invariants: the variables leave the environment at once, so that no child ever speaks for the daemon; nothing here
blocks. The watchdog is fed by the loop itself: a loop that hangs is noticed, a thread that lives on is no excuse.
How it fails: a message that can't be sent is dropped; sockets that can't be ours are refused in a sentence.
Source: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, MutableMapping

from autodl_lib.contract.errors import BadSettings

STATUS_INTERVAL_S = 1.0
"""Two messages of STATUS= are never closer than this."""

_FIRST_FD = 3
_LISTEN_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_NOTIFY_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")

Environment = MutableMapping[str, str]


def adopted_socket(environment: Environment) -> socket.socket | None:
    """Return the listening socket that systemd opened for this process, or None where it opened none.

    Raises: BadSettings where what was handed over is not one Unix stream socket that listens.
    """
    values = {name: environment.pop(name, "") for name in _LISTEN_VARIABLES}
    if values["LISTEN_PID"] != str(os.getpid()):
        return None
    count = int(values["LISTEN_FDS"]) if values["LISTEN_FDS"].isdecimal() else 0
    if count == 0:
        return None
    names = values["LISTEN_FDNAMES"] or "nameless"
    if count != 1:
        raise BadSettings(
            f"systemd handed over {count} sockets ({names}): autodl.socket may have one ListenStream= only"
        )
    try:
        os.set_inheritable(_FIRST_FD, False)
        adopted = socket.socket(fileno=_FIRST_FD)
    except OSError as error:
        raise BadSettings(f"what systemd handed over ({names}) is no socket: {error.strerror}") from None
    is_listening = adopted.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if adopted.family != socket.AF_UNIX or adopted.type != socket.SOCK_STREAM or not is_listening:
        raise BadSettings(f"what systemd handed over ({names}) is no Unix stream socket that listens (ListenStream=)")
    if not path_of(adopted):
        raise BadSettings(f"the socket that systemd handed over ({names}) has no path: ListenStream= must start with /")
    adopted.setblocking(False)
    return adopted


def path_of(listening: socket.socket) -> str:
    """Return the path of a Unix socket, empty where it has none (an abstract one)."""
    name = listening.getsockname()
    return name if isinstance(name, str) and name.startswith("/") else ""


class ServiceManager:
    """The daemon's word to systemd; without systemd, all of it does nothing."""

    def __init__(self, environment: Environment) -> None:
        """Take what concerns this process out of `environment`."""
        values = {name: environment.pop(name, "") for name in _NOTIFY_VARIABLES}
        self._address = _address(values["NOTIFY_SOCKET"])
        self._watchdog_s = _watchdog_s(values["WATCHDOG_PID"], values["WATCHDOG_USEC"]) if self._address else 0.0
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        self._is_ready = False
        self._beat: asyncio.TimerHandle | None = None

    @property
    def listens(self) -> bool:
        """Whether there is a service manager to talk to."""
        return self._socket is not None

    def ready(self) -> None:
        """Say that the daemon serves, and feed the watchdog from now on; call on the loop."""
        self._is_ready = True
        self._send("READY=1")
        if self._watchdog_s and self._beat is None:
            self._feed()

    def status(self, text: str) -> None:
        """Say in words what the daemon does."""
        self._send("STATUS=" + text.replace("\n", " "))

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Say that the configuration is read again, and when that is over."""
        if not self._is_ready:
            yield
            return
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self._send("READY=1")

    def stopping(self) -> None:
        """Say that the daemon is on its way out; a reload says no more that it is ready."""
        self._is_ready = False
        self._send("STOPPING=1")

    def close(self) -> None:
        """Say nothing more."""
        if self._beat is not None:
            self._beat.cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _feed(self) -> None:
        self._send("WATCHDOG=1")
        self._beat = asyncio.get_running_loop().call_later(self._watchdog_s / 2, self._feed)

    def _send(self, *assignments: str) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.sendto("\n".join(assignments).encode("utf-8", "replace"), self._address)


class StatusLine:
    """Keeps STATUS= up to date: the first change at once, later ones together, once a second at most."""

    def __init__(self, manager: ServiceManager, words: Callable[[], str]) -> None:
        self._manager = manager
        self._words = words
        self._said = ""
        self._said_mono = -STATUS_INTERVAL_S
        self._due: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def changed(self) -> None:
        """Something that the status tells has changed."""
        if self._due is None and self._manager.listens:
            self._due = self._loop.call_at(self._said_mono + STATUS_INTERVAL_S, self._say)

    def close(self) -> None:
        """Say nothing more."""
        if self._due is not None:
            self._due.cancel()

    def _say(self) -> None:
        self._due = None
        words = self._words()
        if words != self._said:
            self._said = words
            self._said_mono = self._loop.time()
            self._manager.status(words)


def _address(notify_socket: str) -> str:
    """Return the address of the manager's socket; `@` at its start stands for the null byte of an abstract one."""
    if notify_socket.startswith("@"):
        return "\0" + notify_socket[1:]
    return notify_socket if notify_socket.startswith("/") else ""


def _watchdog_s(pid: str, usec: str) -> float:
    """Return how often the watchdog must hear of us at least, 0 where it does not watch this process."""
    if (pid and pid != str(os.getpid())) or not usec.isdecimal():
        return 0.0
    return int(usec) / 1e6
