"""The sockets that HTTP clients connect to: addresses, paths, or what the service manager hands over.

Runs as: an unprivileged account.  Talks to: the network stack, the file system, the environment.
Security: only the loopback, unless told otherwise: there is no TLS. A Unix socket is for its owner alone; one for
others is the service manager's to make (SocketMode=).
Source: sd_listen_fds(3).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import stat
from dataclasses import dataclass

from autodl_lib.client.locate import MAX_SOCKET_PATH_BYTES
from autodl_lib.contract.errors import AlreadyRunning, BadSettings, InvalidParams

_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+|localhost)):([0-9]{1,5})", re.ASCII)
_UNIX = "unix:"
_FIRST_FD = 3
_BACKLOG = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """A socket that clients connect to."""

    socket: socket.socket
    name: str
    is_remote: bool = False
    host: str | None = None
    made_path: str | None = None
    """Of a Unix socket that was made here."""

    def close(self) -> None:
        """Listen no more."""
        self.socket.close()
        if self.made_path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.made_path)


def open_sockets(listen: tuple[str, ...], default: str, *, allow_remote: bool) -> list[Listening]:
    """Return what to listen on: what was handed over, else what is asked for, else the default.

    Raises: InvalidParams, BadSettings, AlreadyRunning.
    """
    inherited = _inherited()
    if inherited and listen:
        raise InvalidParams("--listen: the service manager has handed sockets over; change those (ListenStream=)")
    opened: list[Listening] = []
    try:
        opened += [_described(one) for one in inherited]
        if not inherited:
            opened += [_open(address, allow_remote=allow_remote) for address in listen or (default,)]
        for one in opened:
            _check_local(one.name, is_remote=one.is_remote, allow_remote=allow_remote)
    except BaseException:
        for one in opened:
            one.close()
        raise
    return opened


def _inherited() -> list[socket.socket]:
    """Take over the sockets that are meant for this process."""
    values = {name: os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if values["LISTEN_PID"] != str(os.getpid()) or not values["LISTEN_FDS"].isdecimal():
        return []
    sockets = []
    for descriptor in range(_FIRST_FD, _FIRST_FD + int(values["LISTEN_FDS"])):
        try:
            os.set_inheritable(descriptor, False)
            one = socket.socket(fileno=descriptor)
            listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise BadSettings(f"what was handed over as socket {descriptor} is none: {error.strerror}") from None
        if one.type != socket.SOCK_STREAM or not listens:
            raise BadSettings(f"what was handed over as socket {descriptor} is not listening (ListenStream=)")
        sockets.append(one)
    return sockets


def _described(listening: socket.socket) -> Listening:
    if listening.family == socket.AF_UNIX:
        return Listening(socket=listening, name=f"{_UNIX}{os.fsdecode(listening.getsockname())}")
    host, port = listening.getsockname()[:2]
    address = ipaddress.ip_address(host.partition("%")[0])
    shown = f"[{host}]" if address.version == 6 else host
    return Listening(
        socket=listening, name=f"http://{shown}:{port}", is_remote=not address.is_loopback, host=str(address)
    )


def _open(address: str, *, allow_remote: bool) -> Listening:
    if address.startswith(_UNIX):
        return _open_path(address.removeprefix(_UNIX))
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match[3]) > 65535:
        raise InvalidParams(f"--listen: ADDRESS:PORT, [IPV6]:PORT or unix:PATH, not {address[:200]!r}")
    try:
        where = ipaddress.ip_address(match[1] or match[2].replace("localhost", "127.0.0.1"))
    except ValueError:
        raise InvalidParams(f"--listen: {address[:200]!r} has no IP address in it") from None
    _check_local(address, is_remote=not where.is_loopback, allow_remote=allow_remote)
    made = socket.socket(socket.AF_INET6 if where.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if where.version == 6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((str(where), int(match[3])))
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise AlreadyRunning(f"can't listen on {address}: {error.strerror}") from None
    return _described(made)


def _check_local(name: str, *, is_remote: bool, allow_remote: bool) -> None:
    if is_remote and not allow_remote:
        raise InvalidParams(
            f"{name} can be reached from other machines, and there is no TLS: the token could be read on the way."
            " Listen on 127.0.0.1 behind a proxy that speaks TLS; or say --allow-remote"
        )


def _open_path(path: str) -> Listening:
    full = os.path.abspath(path)
    if not path or "\0" in path or len(os.fsencode(full)) > MAX_SOCKET_PATH_BYTES:
        raise InvalidParams(f"--listen: the path of a socket has 1 to {MAX_SOCKET_PATH_BYTES} bytes: {full}")
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        _remove_stale(full)
        made.bind(full)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise BadSettings(f"can't make the socket {full}: {error.strerror}") from None
    except BaseException:
        made.close()
        raise
    finally:
        os.umask(umask)
    return Listening(socket=made, name=f"{_UNIX}{full}", made_path=full)


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody answers on.

    Raises: AlreadyRunning, BadSettings, OSError.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BadSettings(f"{path} is there and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise AlreadyRunning(f"somebody answers on {path} already")
