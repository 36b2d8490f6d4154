"""An HTTP server on loopback that answers as wrongly as a test declares.

What it answers is declared in misbehaving_cases.py: a path has a `Case`, several, or a `Page` with rules. Every
request is recorded. `hold_after` stops in the middle of a body until `release` is called, and `stop_after` stops all
bodies once the server has sent so much, so a test can look at a transfer that is under way without waiting for time
to pass.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from dataclasses import replace
from types import TracebackType

from support.misbehaving_answers import compose
from support.misbehaving_cases import MISSING, Case, Page, SeenRequest

__all__ = ["Case", "MisbehavingServer", "Page", "SeenRequest"]

_LINGER = b"\x01\x00\x00\x00\x00\x00\x00\x00"
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL
_PIECE_BYTES = 65536
_PIECES_A_SECOND = 50
_MADE_UP_FOR_S = 0.1
"""Who is late by more than that, since the machine is busy, does not send all of it at once."""


class MisbehavingServer:
    """Serves until the `with` block ends."""

    def __init__(self) -> None:
        self.requests: list[SeenRequest] = []
        self.connections = 0
        self.most_connections = 0
        """The most that were open at once."""
        self.most_answers = 0
        """The most answers that were under way at once."""
        self.sent_bytes = 0
        """Of all bodies."""
        self.held = threading.Semaphore(0)
        """Released each time that an answer stops at its `hold_after`."""
        self.broken = threading.Semaphore(0)
        """Released each time that the client went away in the middle of a body."""
        self.stopped = threading.Event()
        """Set when bodies stop at `stop_after`."""
        self._pages: dict[str, Page] = {}
        self._turns: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._lock = threading.Lock()
        self._go = threading.Event()
        self._stop_at: int | None = None
        self._open_gate = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._clients: set[socket.socket] = set()
        self._answering: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> MisbehavingServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._go.set()
        self._open_gate.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for client in tuple(self._clients):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    # --- what a test tells it ---

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self._socket.getsockname()[1])

    def serve(self, path: str, *cases: Case) -> str:
        """Declare the answers for a path, one for each request in turn (the last one stays); returns its URL."""
        return self.serve_page(Page(path=path, cases=cases))

    def serve_page(self, page: Page) -> str:
        """Declare the answers for a path; returns its URL."""
        path = page.path.partition("?")[0]
        with self._lock:
            self._pages[path] = page
            self._turns[path] = self._numbers[path] = 0
        return f"http://127.0.0.1:{self.port}{page.path}"

    def release(self) -> None:
        """Let all answers that stopped at their `hold_after` go on."""
        self._go.set()

    def stop_after(self, total_bytes: int) -> None:
        """Stop all bodies when so much more has been sent, until `go_on`."""
        with self._lock:
            self._stop_at = self.sent_bytes + total_bytes

    def go_on(self) -> None:
        """Let bodies that stopped go on, and stop no more."""
        with self._lock:
            self._stop_at = None
        self._open_gate.set()

    # --- what a test asks it ---

    def open_connections(self) -> int:
        """Count the connections that the client has not closed."""
        return sum(not _is_gone(client) for client in tuple(self._clients))

    def answers_under_way(self) -> int:
        """Count the answers of which the last piece is not being sent, and that the client still wants."""
        return sum(not _is_gone(client) for client in tuple(self._answering))

    # --- the wire ---

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._clients.add(client)
            self.connections += 1
            self.most_connections = max(self.most_connections, self.open_connections())
            threading.Thread(target=self._talk, args=(client, self.connections), daemon=True).start()

    def _talk(self, client: socket.socket, connection: int) -> None:
        stream = client.makefile("rb")
        with contextlib.suppress(OSError, ValueError):
            while True:
                line = stream.readline().decode("latin-1").strip()
                if not line:
                    break
                seen = SeenRequest(line=line, headers=_read_headers(stream), connection=connection)
                if not self._answer(client, seen):
                    break
        self._clients.discard(client)
        with contextlib.suppress(OSError):
            stream.close()
            client.close()

    def _answer(self, client: socket.socket, seen: SeenRequest) -> bool:
        """Answer one request; False when the connection is over."""
        with self._lock:
            number = self._numbers[seen.path] = self._numbers.get(seen.path, 0) + 1
            seen = replace(seen, number=number, others=self.answers_under_way())
            self.requests.append(seen)
            turn = self._turns.get(seen.path, 0)
            case, in_turn = self._pages.get(seen.path, MISSING).case_for(seen, turn)
            self._turns[seen.path] = turn + in_turn
            self._answering.add(client)
            self.most_answers = max(self.most_answers, self.answers_under_way())
        try:
            return self._send_answer(client, case, seen)
        finally:
            self._answering.discard(client)

    def _send_answer(self, client: socket.socket, case: Case, seen: SeenRequest) -> bool:
        if case.raw is not None:
            client.sendall(case.raw)
            while case.raw_again:
                client.sendall(case.raw_again)
            return self._break_off(client, case)
        answer = compose(case, seen)
        self._send(client, answer.head, case.head_rate_bps, counts=False)
        rate_bps = case.rate_bps
        if rate_bps is not None and case.slow_every and seen.connection % case.slow_every == 0:
            rate_bps //= case.slow_factor
        try:
            whole = self._send_body(client, case, answer.body, rate_bps)
        except OSError:
            self.broken.release()
            raise
        return whole and answer.keeps

    def _send_body(self, client: socket.socket, case: Case, wire: bytes, rate_bps: int | None) -> bool:
        if case.hold_after is not None:
            self._send(client, wire[: case.hold_after], rate_bps)
            self.held.release()
            self._go.wait()
            wire = wire[case.hold_after :]
        if case.hang_after is not None and case.hang_after < len(wire):
            self._send(client, wire[: case.hang_after], rate_bps)
            _await_gone(client)
            return False
        if case.cut_after is not None and case.cut_after < len(wire):
            self._send(client, wire[: case.cut_after], rate_bps)
            return self._break_off(client, case)
        self._send(client, wire, rate_bps, is_all=True)
        return True

    def _break_off(self, client: socket.socket, case: Case) -> bool:
        if case.reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        if case.half_close:
            client.shutdown(socket.SHUT_WR)
            _await_gone(client)
        if case.hang_after is not None:
            _await_gone(client)
        return False

    def _send(
        self, client: socket.socket, data: bytes, rate_bps: int | None, *, counts: bool = True, is_all: bool = False
    ) -> None:
        size = _PIECE_BYTES if rate_bps is None else max(1, min(_PIECE_BYTES, rate_bps // _PIECES_A_SECOND))
        due_mono = time.monotonic()
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            if counts:
                self._pass_gate(len(piece))
            if is_all and start + size >= len(data):
                self._answering.discard(client)  # whoever has the last piece may ask again, before this goes on
            client.sendall(piece)
            if rate_bps is not None:
                due_mono = max(due_mono + len(piece) / rate_bps, time.monotonic() - _MADE_UP_FOR_S)
                self._sleep_until(client, due_mono)

    def _sleep_until(self, client: socket.socket, due_mono: float) -> None:
        left_s = due_mono - time.monotonic()
        if left_s > 0 and _is_gone(client, timeout_s=left_s):
            raise ConnectionResetError("the client went away")

    def _pass_gate(self, size: int) -> None:
        with self._lock:
            self.sent_bytes += size
            waits = self._stop_at is not None and self.sent_bytes > self._stop_at
        if waits:
            self.stopped.set()
            self._open_gate.wait()


def _is_gone(client: socket.socket, *, timeout_s: float | None = 0.0) -> bool:
    """Tell whether a client has closed its side, or does so in this time."""
    poll = select.poll()
    try:
        poll.register(client, select.POLLRDHUP)
    except (ValueError, OSError):
        return True
    events = poll.poll(None if timeout_s is None else timeout_s * 1000)
    return any(event & _GONE for _, event in events)


def _await_gone(client: socket.socket) -> None:
    _is_gone(client, timeout_s=None)


def _read_headers(stream: object) -> dict[str, str]:
    headers: dict[str, str] = {}
    while True:
        line = stream.readline().decode("latin-1").strip()  # type: ignore[attr-defined]
        if not line:
            return headers
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
