"""How soon a user's `status` is answered while another one floods the daemon: `python tests/bench/flood.py [SECONDS]`.

Run as root: it makes two accounts and a daemon. For each kind of flood it prints the median, the 99th percentile and
the worst time of `status`, over an open connection and over a new one each, and what the flood got done meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.accounts import User, accounts
from support.daemon import Daemon
from support.rpc import Wire, request

URLS = ["http://127.0.0.1:1/" + "x" * 40] * 20_000
FLOODERS = 1
"""Processes of the user who floods; more than the cores that are left only show who gets a core."""


def connected(path: Path) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    try:
        peer.connect(str(path))
    except OSError:
        peer.close()
        raise
    return peer


def pipelining(line: bytes, connections: int) -> Callable[[Path], None]:
    """Send a request again and again over some connections, reading whatever comes back."""

    def flood(path: Path) -> None:
        peers = [connected(path) for _ in range(connections)]
        for peer in peers:
            peer.setblocking(False)
        lot = line * max(1, 65536 // len(line))
        left = dict.fromkeys(peers, b"")
        while True:
            for peer in peers:
                with contextlib.suppress(BlockingIOError):
                    left[peer] = left[peer] or lot
                    left[peer] = left[peer][peer.send(left[peer]) :]
                with contextlib.suppress(BlockingIOError):
                    while peer.recv(1 << 20):
                        pass

    return flood


def reconnecting(path: Path) -> None:
    while True:
        with contextlib.suppress(OSError), connected(path) as peer:
            peer.sendall(request(1, "stats"))


def idle_connections(path: Path) -> None:
    kept = []
    while True:
        with contextlib.suppress(OSError):
            kept.append(connected(path))


def add_and_clear(path: Path) -> None:
    with Wire(path) as wire:
        while True:
            with contextlib.suppress(Exception):
                wire.call("add", urls=URLS, dir="/tmp", paused=False)
            wire.call("clear")


FLOODS: dict[str, Callable[[Path], None]] = {
    "nothing": lambda _: time.sleep(1000),
    "small questions, pipelined": pipelining(request(1, "stats"), 50),
    "lists of 5000 tasks": pipelining(request(1, "list", limit=5000), 50),
    "adds of one URL": pipelining(request(1, "add", urls=URLS[:1], dir="/tmp", paused=True), 20),
    "adds of 20,000 URLs, and clear": add_and_clear,
    "lines that are no JSON": pipelining(b"x\n", 50),
    "long lines that are refused": pipelining(b'{"a":"' + b"y" * 3_000_000 + b'"}\n', 20),
    "empty lines": pipelining(b"\n", 50),
    "watches of 10,000 tasks": pipelining(request(1, "watch"), 80),
    "connections made and dropped": reconnecting,
    "connections that say nothing": idle_connections,
}


@contextlib.contextmanager
def flooding(user: User, path: Path, flood: Callable[[Path], None]) -> Iterator[None]:
    children = []
    for _ in range(FLOODERS):
        child = os.fork()
        if child == 0:
            os.setgroups([user.gid])
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
            with contextlib.suppress(BaseException):
                flood(path)
            os._exit(0)
        children.append(child)
    try:
        yield
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def times_ms(user: User, path: Path, task_id: int, seconds: float) -> dict[str, list[float]]:
    """Ask as a user, now over an open connection and now over a new one."""

    def ask() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {"open": [], "new": []}
        end = time.monotonic() + seconds
        with Wire(path) as wire:
            while time.monotonic() < end:
                began = time.perf_counter()
                wire.call("status", id=task_id)
                found["open"].append(1000 * (time.perf_counter() - began))
                began = time.perf_counter()
                with Wire(path) as new:
                    new.call("status", id=task_id)
                found["new"].append(1000 * (time.perf_counter() - began))
                time.sleep(0.005)
        return found

    answer = user.do(ask)
    assert isinstance(answer, dict)
    return answer


def words_of(times: list[float]) -> str:
    times = sorted(times)
    return f"{times[len(times) // 2]:7.1f} {times[min(len(times) - 1, int(len(times) * 0.99))]:7.1f} {times[-1]:7.1f}"


def main(seconds: float) -> None:
    """Run every flood."""
    with accounts("flooder", "quiet") as users, tempfile.TemporaryDirectory(prefix="autodl-f-") as folder:
        Path(folder).chmod(0o755)
        daemon = Daemon(Path(folder)).start()
        try:
            flooder, quiet = users["flooder"], users["quiet"]
            [task_id] = quiet.call(daemon.socket, "add", urls=URLS[:1], dir="/tmp", paused=True)["ids"]
            flooder.call(daemon.socket, "pause")
            flooder.call(daemon.socket, "add", urls=URLS[:10_000], dir="/tmp", paused=True)
            print(f"{'ms, of `status`':34} {'open: median, 99 %, worst':>26} {'new: median, 99 %, worst':>26}  asked")
            for name, flood in FLOODS.items():
                with flooding(flooder, daemon.socket, flood):
                    time.sleep(0.5)
                    found = times_ms(quiet, daemon.socket, task_id, seconds)
                words = [f"{words_of(found[kind]):>26}" for kind in ("open", "new")]
                print(f"{name:34} {words[0]} {words[1]}  {len(found['open'])}", flush=True)
        finally:
            daemon.end_all()
            print(json.dumps(daemon.defects()))


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0)
