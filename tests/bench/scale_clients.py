"""What the scale bench does as users of the machine: forked children that become them, add, ask and report.

Runs as: a child of the bench, as one user for good.  Talks to: the daemon's socket, raw, so that no client's own cost
is in the figures.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Self

from support.accounts import User
from support.rpc import request

LOT = 5000
"""URLs in one request, as `autodl add -i` sends them."""

_ASK_EVERY_S = 0.002


class Child:
    """Work that another user does beside us; `result` waits for it to end."""

    def __init__(self, user: User, work: Callable[[], Any]) -> None:
        self._reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reader)
            signal.signal(signal.SIGTERM, _end)
            os.setgroups([user.gid])
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
            try:
                answer = {"result": work()}
            except BaseException as error:  # noqa: BLE001
                answer = {"broken": repr(error)}
            with open(writer, "w") as pipe:
                json.dump(answer, pipe)
            os._exit(0)
        os.close(writer)

    def end(self) -> None:
        """Ask it to come to its end."""
        os.kill(self.pid, signal.SIGTERM)

    def result(self) -> Any:
        """Return what it found out."""
        with open(self._reader) as pipe:
            answer = json.load(pipe)
        os.waitpid(self.pid, 0)
        if "broken" in answer:
            raise RuntimeError(answer["broken"])
        return answer["result"]


class Wire:
    """A connection that cuts lines and looks no closer."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb", buffering=1 << 18)
        self.read_line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def call(self, method: str, **params: Any) -> Any:
        """Ask one thing, and wait for the answer for as long as it takes."""
        self.send(request(1, method, **params))
        while "id" not in (answer := json.loads(self.read_line())):
            pass
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def read_line(self) -> bytes:
        """Return the next line."""
        line = self._lines.readline()
        if not line:
            raise ConnectionError("the daemon closed the connection")
        return line


class Ended(Exception):
    """The bench has asked for the end."""


def _end(_: int, __: FrameType | None) -> None:
    raise Ended


def urls_of(user: User, count: int, base: str) -> Iterator[list[str]]:
    """Yield lots of different URLs, as long as usual ones are."""
    for first in range(0, count, LOT):
        numbers = range(first, min(count, first + LOT))
        yield [f"{base}some/folder/of/{user.name}/file-{number:07}.bin" for number in numbers]


def fill(user: User, path: Path, count: int, base: str) -> float:
    """Add tasks in bulk, three requests on their way at once; return the seconds until all are on disk."""
    lots = [request(1, "add", urls=urls, dir="/tmp") for urls in urls_of(user, count, base)]
    began_mono = time.monotonic()
    with Wire(path) as wire:
        waiting = 0
        for lot in lots:
            if waiting == 3:
                _added(wire)
                waiting -= 1
            wire.send(lot)
            waiting += 1
        for _ in range(waiting):
            _added(wire)
    return time.monotonic() - began_mono


def add_one_by_one(path: Path, count: int, base: str) -> float:
    """Add tasks by a request each, pipelined on one connection; return the seconds until all are on disk."""
    lines = b"".join(request(n, "add", urls=[f"{base}single/{n}.bin"], dir="/tmp") for n in range(1, count + 1))
    began_mono = time.monotonic()
    with Wire(path) as wire:
        sender = os.fork()
        if sender == 0:
            wire.send(lines)
            os._exit(0)
        for _ in range(count):
            _added(wire)
        os.waitpid(sender, 0)
    return time.monotonic() - began_mono


def ask(path: Path, method: str, times: int, **params: Any) -> list[float]:
    """Ask the same thing again and again; return the milliseconds of each answer, from request to last byte."""
    line = request(1, method, **params)
    found = []
    with Wire(path) as wire:
        for _ in range(times):
            began_mono = time.perf_counter()
            wire.send(line)
            answer = wire.read_line()
            found.append(1000 * (time.perf_counter() - began_mono))
            if b'"error"' in answer[:200]:
                raise RuntimeError(answer[:500])
            time.sleep(0.001)
    return found


def ask_until_ended(path: Path, task_id: int) -> list[float]:
    """Ask for `status` every 2 ms until SIGTERM comes; return the milliseconds of each answer."""
    found: list[float] = []
    line = request(1, "status", id=task_id)
    with Wire(path) as wire:
        try:
            while True:
                began_mono = time.perf_counter()
                wire.send(line)
                wire.read_line()
                found.append(1000 * (time.perf_counter() - began_mono))
                time.sleep(_ASK_EVERY_S)
        except Ended:
            return found


def follow_until_ended(path: Path) -> int:
    """Watch all of one's tasks until SIGTERM comes; return how many changes were told."""
    told = 0
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        peer.sendall(request(1, "watch"))
        try:
            while data := peer.recv(1 << 20):
                told += data.count(b"\n")
        except Ended:
            pass
    return told


def _added(wire: Wire) -> None:
    answer = wire.read_line()
    if b'"error"' in answer[:200]:
        raise RuntimeError(answer[:500])
