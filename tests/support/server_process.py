"""A server program that a test runs in the foreground: started, seen to listen, ended."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from support.waiting import wait_until


class Stoppable(Protocol):
    """A server."""

    def stop(self) -> None:
        """End it."""


S = TypeVar("S", bound=Stoppable)


class ServerProcess:
    """One running program; what it writes goes to `log`."""

    def __init__(self, command: Sequence[str], *, ports: Sequence[int], log: Path) -> None:
        self._log = log
        self._name = Path(command[0]).name
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        for port in ports:
            wait_until(lambda port=port: self._listens(port), f"{self._name} listens on {port}")  # type: ignore[misc]

    def stop(self) -> None:
        """End it in its own way."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def _listens(self, port: int) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"{self._name} does not start: {self._log.read_text(errors='replace')[-3000:]}")
        return answers(port)


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that servers may enter when they have become another user."""
    folder = Path(tempfile.mkdtemp(prefix="autodl-s-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def running(make: Callable[[Path], S]) -> Iterator[S]:
    """A server in a folder of its own."""
    with public_folder() as folder:
        server = make(folder)
        try:
            yield server
        finally:
            server.stop()


def free_port() -> int:
    """Return a port of the loopback that nobody uses now, and nobody else is given soon.

    It is none of those that the kernel gives to whoever asks for any, and none of another process of the tests.
    """
    while True:
        port = next(_PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _ports() -> Iterator[int]:
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    mine = range(_FIRST_PORT + number % _SHARES, _FIRST_OF_THE_KERNEL, _SHARES)
    start = secrets.randbelow(len(mine))  # as other runs on this machine may begin elsewhere
    return itertools.cycle([*mine[start:], *mine[:start]])


_FIRST_PORT, _FIRST_OF_THE_KERNEL = 10_000, 32_768
_SHARES = 16
_PORTS = _ports()


def answers(port: int) -> bool:
    """Tell whether somebody listens on a port of the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def program(name: str) -> str:
    """Return where a program is."""
    found = shutil.which(name, path=f"/usr/sbin:/usr/bin:{os.environ.get('PATH', '')}")
    assert found is not None, f"{name} is not installed; see .ci/run"
    return found
