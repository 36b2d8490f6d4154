"""A scripted daemon on a Unix socket, in a thread, and the real command line as a subprocess against it.

Known limits: one script for all connections; it answers what it is told, however wrong that is.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HELLO = {"jsonrpc": "2.0", "method": "hello", "params": {"protocol": 1, "version": "0.1.0"}}

Answer = dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]] | bytes | None
Run = Callable[..., subprocess.CompletedProcess[str]]


class Refusal(Exception):
    """Answer with an error of this code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Hangup(Exception):
    """Close the connection in place of an answer."""


class FakeDaemon:
    """Answers each method from `answers`: a result, a function of the params, raw bytes, or None for silence."""

    def __init__(self, path: Path, answers: dict[str, Answer] | None = None, hello: bytes | None = None) -> None:
        self.path = path
        self.answers = answers or {}
        self.hello = json.dumps(HELLO).encode() + b"\n" if hello is None else hello
        self.requests: list[dict[str, Any]] = []
        self.watches: list[list[dict[str, Any]]] = []
        """For each `watch` in turn: tasks to notify; the first of each id go before the reply. Then it hangs up,
        unless it was the last script."""
        self._closing = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []

    def __enter__(self) -> FakeDaemon:
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()
        for thread in self._threads:
            thread.join()

    def params(self, method: str) -> list[dict[str, Any]]:
        """Return the params of all requests of a method."""
        return [request["params"] for request in self.requests if request["method"] == method]

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as lines:
                connection.sendall(self.hello)
                for line in lines:
                    request = json.loads(line)
                    self.requests.append(request)
                    self._answer(connection, request)
        except (OSError, ValueError, Hangup):
            pass

    def _answer(self, connection: socket.socket, request: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        try:
            if request["method"] == "watch" and "watch" not in self.answers:
                self._watch(connection, reply)
                return
            answer = self.answers[request["method"]]
            if answer is None:
                return
            if isinstance(answer, bytes):
                connection.sendall(answer)
                raise Hangup
            reply["result"] = answer(request["params"]) if callable(answer) else answer
        except Refusal as refusal:
            reply["error"] = {"code": -32000, "message": str(refusal), "data": {"code": refusal.code}}
        send(connection, reply)

    def _watch(self, connection: socket.socket, reply: dict[str, Any]) -> None:
        script = self.watches.pop(0)
        seen: set[int] = set()
        replied = False
        for task in script:
            if task["id"] in seen and not replied:
                send(connection, {**reply, "result": {"tasks": len(seen), "settled": 0}})
                replied = True
            seen.add(task["id"])
            send(connection, {"jsonrpc": "2.0", "method": "task", "params": task})
        if not replied:
            send(connection, {**reply, "result": {"tasks": len(seen), "settled": 0}})
        if self.watches:
            raise Hangup


def send(connection: socket.socket, document: dict[str, Any]) -> None:
    """Send one line."""
    connection.sendall(json.dumps(document).encode() + b"\n")


def task(task_id: int = 17, state: str = "enqueued", **fields: Any) -> dict[str, Any]:
    """Make a task as the wire shows it."""
    return {
        "id": task_id,
        "url": f"http://example.test/file{task_id}.bin",
        "name": f"file{task_id}.bin",
        "dest": f"/data/file{task_id}.bin" if state == "finished" else None,
        "dir": "/data",
        "state": state,
        "owner": "alice",
        "uid": 1000,
        "priority": 0,
        "bytes_done": 0,
        "bytes_total": None,
        "speed_bps": 0,
        "eta_s": None,
        "connections": 0,
        "attempts": 0,
        "http_status": None,
        "error": None,
        "created_at": 1700000000.0,
        "started_at": None,
        "finished_at": None,
        "retry_at": None,
        "label": None,
        **fields,
    }


def environment(home: Path, **variables: str) -> dict[str, str]:
    """Make an environment in which nothing of the machine's own autodl is found, and no proxy."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("XDG_", "AUTODL_")) and not name.lower().endswith("_proxy")
    }
    return {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": str(home / "runtime"), "TERM": "dumb", **variables}


def autodl(*arguments: str, cwd: Path, stdin: str | bytes = b"", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in `cwd`, which is also its home, to its end."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "autodl.py"), *arguments],
        cwd=cwd,
        env=environment(cwd, **variables),
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    result = subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result
