"""TLS before a server that speaks none: what comes is deciphered and passed on, both ways."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

from support.certificates import KeyPair
from support.loopback_server import LoopbackServer

_PIECE_BYTES = 65536


class TlsDoor(LoopbackServer):
    """Serves until the `with` block ends."""

    def __init__(self, place: str, pair: KeyPair) -> None:
        """`place`: HOST:PORT of the server behind it."""
        super().__init__()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.cert, pair.key)
        host, _, port = place.rpartition(":")
        self._behind = (host, int(port))
        self.passed_bytes = 0

    def serve(self, client: socket.socket) -> None:
        """See LoopbackServer."""
        with (
            contextlib.suppress(OSError),
            self._context.wrap_socket(client, server_side=True) as inside,
            socket.create_connection(self._behind) as behind,
        ):
            back = threading.Thread(target=self._pass, args=(behind, inside), daemon=True)
            back.start()
            self._pass(inside, behind)
            back.join()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE_BYTES):
                self.passed_bytes += len(data)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
