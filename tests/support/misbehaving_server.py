"""An HTTP server on loopback that answers as wrongly as a test declares.

A `Case` is one answer; a path has one case or a list of them, one for each request in turn (the last one stays).
Every request is recorded. `hold_after` stops in the middle of a body until `release` is called or the client goes,
so a test can look at a transfer that is under way without waiting for time to pass.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from types import TracebackType

_LINGER = b"\x01\x00\x00\x00\x00\x00\x00\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One answer.

    `range_shift` moves the range that a 206 says it is, `range_length` is the most that one holds; `claim_size` is a
    false Content-Length.
    """

    body: bytes = b""
    status: str = "200 OK"
    headers: tuple[str, ...] = ()
    etag: str | None = None
    last_modified: str | None = None
    ranges: bool = True
    check_if_range: bool = True
    range_shift: int = 0
    range_total: str | None = None
    range_length: int | None = None
    chunked: bool = False
    claim_size: int | None = None
    cut_after: int | None = None
    hold_after: int | None = None
    reset: bool = False
    raw: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRequest:
    """One request as it came; header names in lower case."""

    line: str
    headers: dict[str, str]


class MisbehavingServer:
    """Serves until the `with` block ends."""

    def __init__(self) -> None:
        self.requests: list[SeenRequest] = []
        self.connections = 0
        self.held = threading.Semaphore(0)
        """Released each time that an answer stops at its `hold_after`."""
        self.broken = threading.Semaphore(0)
        """Released each time that the client went away in the middle of a body."""
        self._cases: dict[str, list[Case]] = {}
        self._go = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._clients: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> MisbehavingServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._go.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for client in tuple(self._clients):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self._socket.getsockname()[1])

    def serve(self, path: str, *cases: Case) -> str:
        """Declare the answers for a path; returns its URL."""
        self._cases[path.partition("?")[0]] = list(cases)
        return f"http://127.0.0.1:{self.port}{path}"

    def release(self) -> None:
        """Let all answers that stopped go on."""
        self._go.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            self._clients.add(client)
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        stream = client.makefile("rb")
        with contextlib.suppress(OSError, ValueError):
            while self._answer(client, stream.readline(), _read_headers(stream)):
                pass
        self._clients.discard(client)
        with contextlib.suppress(OSError):
            stream.close()
            client.close()

    def _answer(self, client: socket.socket, line: bytes, headers: dict[str, str]) -> bool:
        """Answer one request; False when the connection is over."""
        if not line:
            return False
        self.requests.append(SeenRequest(line=line.decode("latin-1").strip(), headers=headers))
        path = line.split()[1].decode("latin-1").partition("?")[0]
        cases = self._cases.get(path, [Case(status="404 Not Found", body=b"no such page")])
        case = cases.pop(0) if len(cases) > 1 else cases[0]
        if case.raw is not None:
            client.sendall(case.raw)
            return False
        head, body = _compose(case, headers)
        client.sendall(head)
        try:
            return self._send_body(client, case, body)
        except OSError:
            self.broken.release()
            raise

    def _send_body(self, client: socket.socket, case: Case, body: bytes) -> bool:
        wire = _chunks(body) if case.chunked else body
        if case.hold_after is not None:
            client.sendall(wire[: case.hold_after])
            self.held.release()
            self._go.wait()
            wire = wire[case.hold_after :]
        if case.cut_after is not None:
            client.sendall(wire[: case.cut_after])
            if case.reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
            return False
        client.sendall(wire)
        return case.chunked or case.claim_size is None


def _read_headers(stream: object) -> dict[str, str]:
    headers: dict[str, str] = {}
    while True:
        line = stream.readline().decode("latin-1").strip()  # type: ignore[attr-defined]
        if not line:
            return headers
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()


def _compose(case: Case, headers: dict[str, str]) -> tuple[bytes, bytes]:
    status, body, lines = case.status, case.body, list(case.headers)
    if case.etag is not None:
        lines.append(f"ETag: {case.etag}")
    if case.last_modified is not None:
        lines.append(f"Last-Modified: {case.last_modified}")
    start = _wanted_start(case, headers)
    if start is not None and start >= len(body):
        status, lines, body = "416 Range Not Satisfiable", [f"Content-Range: bytes */{len(body)}"], b""
    elif start is not None:
        first, total = start + case.range_shift, case.range_total or str(len(case.body))
        status, body = "206 Partial Content", body[start:][: case.range_length]
        lines.append(f"Content-Range: bytes {first}-{first + len(body) - 1}/{total}")
    if case.chunked:
        lines.append("Transfer-Encoding: chunked")
    else:
        lines.append(f"Content-Length: {len(body) if case.claim_size is None else case.claim_size}")
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("utf-8"), body


def _wanted_start(case: Case, headers: dict[str, str]) -> int | None:
    wanted = headers.get("range", "")
    if not case.ranges or not wanted.startswith("bytes=") or not case.status.startswith("200"):
        return None
    condition = headers.get("if-range")
    if case.check_if_range and condition is not None and condition not in (case.etag, case.last_modified):
        return None
    return int(wanted.removeprefix("bytes=").partition("-")[0])


def _chunks(body: bytes) -> bytes:
    pieces = [body[start : start + 4096] for start in range(0, len(body), 4096)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
