"""A SOCKS proxy on loopback: versions 4, 4a and 5, with a login when one is given; every request is recorded."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
from dataclasses import dataclass

from support.loopback_server import LoopbackServer

_NO_LOGIN, _BY_PASSWORD, _NONE_FITS = 0, 2, 255
_NAME, _IPV6 = 3, 4
_REFUSED_BY_RULE = 2


class _Over(Exception):
    """The client went away or makes no sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SocksRequest:
    """Who was to be reached, in the client's words; `is_name`: the proxy was to resolve it."""

    version: int
    host: str
    is_name: bool
    port: int


class SocksProxy(LoopbackServer):
    """Serves until the `with` block ends."""

    def __init__(self, *, login: tuple[str, str] | None = None, refuse: bool = False) -> None:
        super().__init__()
        self.requests: list[SocksRequest] = []
        self._login = login
        self._refuse = refuse

    def serve(self, client: socket.socket) -> None:
        """See LoopbackServer."""
        with client, contextlib.suppress(OSError, _Over):
            version = _read(client, 1)[0]
            request = self._ask_version_5(client) if version == 5 else self._ask_version_4(client)
            self.requests.append(request)
            if self._refuse:
                client.sendall(_answer(version, failed=True))
                return
            try:
                server = socket.create_connection((request.host, request.port), 10)
            except OSError:
                client.sendall(_answer(version, failed=True))
                return
            with server:
                client.sendall(_answer(version, failed=False))
                _relay(client, server)

    def _ask_version_4(self, client: socket.socket) -> SocksRequest:
        """Source: SOCKS4a (Ying-Da Lee): an address of 0.0.0.x says that a name follows."""
        _, port, address = struct.unpack("!BH4s", _read(client, 7))
        _read_to_nul(client)
        is_name = address[:3] == b"\0\0\0" and address[3] != 0
        host = _read_to_nul(client).decode() if is_name else socket.inet_ntoa(address)
        return SocksRequest(version=4, host=host, is_name=is_name, port=port)

    def _ask_version_5(self, client: socket.socket) -> SocksRequest:
        """Source: RFC 1928, RFC 1929."""
        offered = _read(client, _read(client, 1)[0])
        wanted = _NO_LOGIN if self._login is None else _BY_PASSWORD
        if wanted not in offered:
            client.sendall(bytes([5, _NONE_FITS]))
            raise _Over
        client.sendall(bytes([5, wanted]))
        if self._login is not None:
            _read(client, 1)
            name = _read(client, _read(client, 1)[0]).decode()
            password = _read(client, _read(client, 1)[0]).decode()
            is_right = (name, password) == self._login
            client.sendall(bytes([1, 0 if is_right else 1]))
            if not is_right:
                raise _Over
        kind = _read(client, 4)[3]
        if kind == _NAME:
            host = _read(client, _read(client, 1)[0]).decode()
        elif kind == _IPV6:
            host = socket.inet_ntop(socket.AF_INET6, _read(client, 16))
        else:
            host = socket.inet_ntoa(_read(client, 4))
        port = int.from_bytes(_read(client, 2), "big")
        return SocksRequest(version=5, host=host, is_name=kind == _NAME, port=port)


def _answer(version: int, *, failed: bool) -> bytes:
    if version == 5:
        return bytes([5, _REFUSED_BY_RULE if failed else 0, 0, 1, 0, 0, 0, 0, 0, 0])
    return bytes([0, 91 if failed else 90, 0, 0, 0, 0, 0, 0])


def _read(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = client.recv(size - len(data))
        if not more:
            raise _Over
        data += more
    return data


def _read_to_nul(client: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\0"):
        data += _read(client, 1)
    return data[:-1]


def _relay(one: socket.socket, other: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select():
                source: socket.socket = key.fileobj  # type: ignore[assignment]
                data = source.recv(65536)
                if not data:
                    return
                key.data.sendall(data)
