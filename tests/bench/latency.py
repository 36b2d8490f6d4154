"""How soon `status` is answered while much goes on: `python tests/bench/latency.py [SECONDS]`, per load.

Loads: none; 16 downloads that take all that both processors have; the same while 10,000 tasks are added again and
again. For each the median, the 99th percentile and the worst time at the daemon, over a connection that is open;
beside it the floor: the same of a bare asyncio server that sends a line back, asked in turn with it, so under the same
load. Asked for: 99th percentile <= 20 ms under the last load, on a machine that does nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from servers import MIB, make_file, nginx
from support.daemon import AUTODL, SETTLED, Daemon
from support.rpc import Wire
from support.waiting import wait_until

_CONFIG = "max_tasks_num = 16\n[transfer]\nmin_free_bytes = 0\ndurable = false\nconnections_per_host = 64\n"
_DOWNLOADS = 16
_WAITING = 8
_TASKS = 10_000
_ASK_EVERY_S = 0.003


@contextlib.contextmanager
def child(work: Callable[[], None]) -> Iterator[None]:
    """Run something in a process of its own for as long as this lasts."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def keep_downloading(daemon: Daemon, url: str) -> None:
    """Have as many large files fetched at once as may be, and some more waiting, on and on."""
    with ThreadPoolExecutor(_DOWNLOADS + _WAITING) as pool:
        for _ in range(_DOWNLOADS + _WAITING):
            pool.submit(download_again_and_again, daemon, url)


def download_again_and_again(daemon: Daemon, url: str) -> None:
    """Fetch a file before all others that wait, remove it, and so on."""
    while True:
        with Wire(daemon.socket) as wire:
            ids = wire.call("add", urls=[url], dir=str(daemon.files / "large"), priority=10)["ids"]
            wire.call("watch", ids=ids, progress=False)
            ended = next(task for task in wire.tasks() if task["state"] in SETTLED)
            Path(ended["dest"]).unlink()


def keep_adding(daemon: Daemon) -> None:
    """Add tasks in lots, and drop them again."""
    with Wire(daemon.socket) as wire:
        while True:
            for _ in range(_TASKS // 500):
                wire.call("add", urls=["http://127.0.0.1:1/" + "x" * 40] * 500, dir=str(daemon.files))
            wire.call("clear")


def serve_floor(path: str) -> None:
    """Send each line back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)

    async def serve() -> None:
        async with await asyncio.start_unix_server(echo, path) as server:
            await server.serve_forever()

    asyncio.run(serve())


def ask(daemon: Daemon, floor: socket.socket, seconds: float) -> tuple[list[float], list[float]]:
    """Ask both again and again; return the times of the answers in ms, sorted."""
    found: list[float] = []
    floors: list[float] = []
    with Wire(daemon.socket) as wire:
        [task_id] = wire.call("add", urls=["http://127.0.0.1:1/"], paused=True)["ids"]
        until = time.monotonic() + seconds
        while (began := time.monotonic()) < until:
            wire.call("status", id=task_id)
            found.append((time.monotonic() - began) * 1000)
            time.sleep(_ASK_EVERY_S)
            began = time.monotonic()
            floor.sendall(b"x\n")
            floor.recv(2)
            floors.append((time.monotonic() - began) * 1000)
            time.sleep(_ASK_EVERY_S)
    return sorted(found), sorted(floors)


def figures(times_ms: list[float]) -> str:
    """Return median, 99th percentile and worst."""
    p99 = times_ms[int(len(times_ms) * 0.99)]
    return f"{times_ms[len(times_ms) // 2]:8.1f} {p99:8.1f} {times_ms[-1]:8.1f}"


def show(load: str, times_ms: list[float], floors_ms: list[float]) -> None:
    """Print a line."""
    print(f"{load:36} {figures(times_ms)}   {figures(floors_ms)}   of {len(times_ms)}", flush=True)


def main() -> None:
    """Measure."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 15.0
    folder = Path(tempfile.mkdtemp(prefix="autodl-latency-"))
    folder.chmod(0o755)
    try:
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(nginx(folder / "nginx"))
            make_file(server.files / "large.bin", 256 * MIB)
            (folder / "daemon").mkdir()
            AUTODL.insert(0, "setsid")  # a session of its own, as service managers give it
            daemon = Daemon(folder / "daemon", config=_CONFIG)
            stack.callback(daemon.end_all)
            daemon.start()
            path = str(folder / "floor.sock")
            stack.enter_context(child(lambda: serve_floor(path)))
            floor = stack.enter_context(socket.socket(socket.AF_UNIX))
            wait_until(lambda: floor.connect_ex(path) == 0, "the floor listens")
            print(f"{'load':36} {'median':>8} {'99%':>8} {'worst':>8}   {'floor':>8} {'99%':>8} {'worst':>8}   ms")
            show("none", *ask(daemon, floor, seconds))
            stack.enter_context(child(lambda: keep_downloading(daemon, server.base + "large.bin")))
            time.sleep(2.0)
            show(f"{_DOWNLOADS} downloads", *ask(daemon, floor, seconds))
            stack.enter_context(child(lambda: keep_adding(daemon)))
            time.sleep(1.0)
            show(f"{_DOWNLOADS} downloads, {_TASKS} being added", *ask(daemon, floor, seconds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
