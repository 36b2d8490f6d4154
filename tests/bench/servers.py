"""The servers that all programs meet: an nginx, a server with limited connections, a relay that delays.

Runs as: the bench.  Talks to: processes that it starts and ends.
Invariants: what is served lies in the page cache before it is measured; `reset` ends the connections of a program
that keeps them, so that every program begins alike.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.waiting import wait_until

MIB = 1 << 20
_HERE = Path(__file__).resolve().parent

_NGINX = """
daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; keepalive_requests 1000000; default_type application/octet-stream;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    server {{ listen 127.0.0.1:{port} backlog=1024; root {folder}/files; }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nginx:
    """A running nginx: where its files are, its port, and their address."""

    files: Path
    port: int

    @property
    def base(self) -> str:
        """The URL of its root, with a slash at the end."""
        return f"http://127.0.0.1:{self.port}/"


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[Nginx]:
    """Run an nginx that limits nothing."""
    files = folder / "files"
    files.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port))
    process = subprocess.Popen(
        ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)], stdin=subprocess.DEVNULL
    )

    def answers() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(answers, "nginx listens")
        yield Nginx(files=files, port=port)
    finally:
        process.terminate()
        process.wait()


class Steered:
    """A server of ours: a process that prints its port and obeys `reset`."""

    def __init__(self, script: str, *arguments: str) -> None:
        command = [sys.executable, str(_HERE / script), *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._read())

    @property
    def base(self) -> str:
        """The URL of its root, with a slash at the end."""
        return f"http://127.0.0.1:{self.port}/"

    def reset(self) -> None:
        """End its connections and begin to count again."""
        assert self._process.stdin is not None
        self._process.stdin.write("reset\n")
        self._process.stdin.flush()
        if self._read() != "ok\n":
            raise RuntimeError("a server of the bench does not obey")

    def end(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a server of the bench ended with {self._process.wait()}")
        return line


@contextlib.contextmanager
def steered(script: str, *arguments: str) -> Iterator[Steered]:
    """Run a server of ours."""
    server = Steered(script, *arguments)
    try:
        yield server
    finally:
        server.end()


def make_file(path: Path, size_bytes: int) -> str:
    """Write a file that no compression or hole makes cheap, and return its sha256; the same size, the same bytes."""
    digest = hashlib.sha256()
    source = random.Random(size_bytes)
    with path.open("wb") as file:
        for offset in range(0, size_bytes, MIB):
            block = source.randbytes(min(MIB, size_bytes - offset))
            digest.update(block)
            file.write(block)
        os.fsync(file.fileno())
    return digest.hexdigest()


def make_small_files(folder: Path, count: int, size_bytes: int) -> dict[str, str]:
    """Write many small files, all different, and return their names and digests."""
    folder.mkdir(parents=True)
    found = {}
    source = random.Random(count)
    for number in range(count):
        data = source.randbytes(size_bytes)
        name = f"{number}.bin"
        (folder / name).write_bytes(data)
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def warm(folder: Path) -> None:
    """Read all files of a folder, so that every program finds them in the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(MIB):
                    pass
