"""TLS before a server that speaks none: what comes is deciphered and passed on, both ways."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from types import TracebackType

from support.certificates import KeyPair

_PIECE_BYTES = 65536


class TlsDoor:
    """Serves until the `with` block ends."""

    def __init__(self, place: str, pair: KeyPair) -> None:
        """`place`: HOST:PORT of the server behind it."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.cert, pair.key)
        host, _, port = place.rpartition(":")
        self._behind = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.passed_bytes = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> TlsDoor:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
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
