"""A real `autodl http`, run as an account of its own, and clients that know no more of it than HTTP."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.accounts import User
from support.daemon import AUTODL, Daemon
from support.waiting import PATIENCE_S, wait_until


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The stable code of an error, as /rpc and as the other paths give it."""
        error = self.json["error"]
        return str(error["data"]["code"] if "data" in error else error["code"])


class HttpFront:
    """The server, and one client's ways to it."""

    def __init__(self, folder: Path, daemon: Daemon, user: User, *arguments: str) -> None:
        self.log_path = folder / "http.log"
        self.token_file = user.home / "token"
        self._environment = daemon.environment(AUTODL_SOCKET=str(daemon.socket), HOME=str(user.home))
        self._user = user
        listen = () if "--listen" in arguments else ("--listen", "127.0.0.1:0")
        self._command = [*AUTODL, "http", *listen, "--token-file", str(self.token_file), *arguments]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> HttpFront:
        """Start it and return when it listens."""
        self.launch()
        wait_until(self._listens, "it listens", seen=self.log)
        return self

    def launch(self, **more: Any) -> subprocess.Popen[bytes]:
        """Start it without waiting."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd="/",
                user=self._user.uid,
                group=self._user.gid,
                extra_groups=[],
                **more,
            )
        return self.process

    def stop(self) -> int:
        """Ask it to end, and return its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        """At the end of a test: stop it, if it runs; it must not have met a defect."""
        if self.process is not None and self.process.poll() is None:
            assert self.stop() == 0
        assert "internal error" not in self.log(), self.log()
        assert "Traceback" not in self.log(), self.log()

    def log(self) -> str:
        """Return what it has logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def port(self) -> int:
        """Where it listens, from its log."""
        return int(re.findall(r"listens on http://[^ ]+:(\d+)", self.log())[-1])

    @property
    def token(self) -> str:
        """What callers prove themselves by."""
        return self.token_file.read_text().strip()

    @property
    def bearer(self) -> dict[str, str]:
        """The header that a caller sends."""
        return {"Authorization": f"Bearer {self.token}"}

    # --- clients ---

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, token: bool = True, **headers: str | None
    ) -> Reply:
        """Send one request on a connection of its own; `content_type=None` leaves a header out."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            sent = self.bearer if token else {}
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            client.request(
                method, path, body, {**sent, **{name: value for name, value in named.items() if value is not None}}
            )
            return read_reply(client.getresponse())
        finally:
            client.close()

    def get(self, path: str, **headers: str | None) -> Reply:
        """Ask a question."""
        return self.ask("GET", path, **headers)

    def post(self, body: bytes, **headers: str | None) -> Reply:
        """Send a body to /rpc."""
        return self.ask("POST", "/rpc", body, **{"Content_Type": "application/json", **headers})

    def rpc(self, method: str, **params: Any) -> Reply:
        """Ask by JSON-RPC."""
        return self.post(rpc_body(method, **params))

    def raw(self, data: bytes) -> bytes:
        """Send bytes, say that no more come, and return all that is answered."""
        with self.connect() as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def connect(self) -> socket.socket:
        """Connect, and say nothing yet."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def head(self, line: str, *more: str, token: bool = True) -> bytes:
        """Return a request's head as bytes."""
        lines = [line, "Host: 127.0.0.1", *more]
        if token:
            lines.append(f"Authorization: Bearer {self.token}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _listens(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"it ended with {self.process.returncode}: {self.log()}")
        return "listens on" in self.log()


MakeFront = Callable[..., HttpFront]
"""The fixture `make_front`: a daemon, and arguments of the command line."""


def rpc_body(method: str, **params: Any) -> bytes:
    """Encode a JSON-RPC request."""
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


def read_reply(response: http.client.HTTPResponse) -> Reply:
    """Read an answer to its end."""
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, headers, response.read())


def read_all(client: socket.socket) -> bytes:
    """Read until the other side is done; what a reset cuts off is left out."""
    data = b""
    try:
        while chunk := client.recv(65536):
            data += chunk
    except ConnectionResetError:
        pass
    return data
