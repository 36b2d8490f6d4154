"""What grows while a daemon works on and on: `python tests/bench/soak.py [SECONDS] [--users N] [--every S]`.

Run as root: it makes accounts, a daemon, and for each account a customer, which adds tasks of mixed sizes and fates,
cancels, pauses, retries, looks, follows, and removes what was saved. Now and then a worker is killed, and seldom the
report queue. Every few seconds a line shows memory (proportional, MiB), descriptors and threads of each process, the
database's size, and what is done. At the end: by how much each column grows in an hour, by its second half.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
from servers import MIB, Nginx, make_file, make_small_files, nginx
from support.accounts import User, accounts
from support.daemon import Daemon
from support.processes import Gone
from support.rpc import Refused, Wire

_CONFIG = """
max_tasks_num = 10
[transfer]
min_free_bytes = 0
connect_timeout_s = 5
[retry]
first_delay_s = 0.5
max_delay_s = 2
max_attempts = 3
[history]
keep_tasks = 2000
keep_events = 4000
"""
_SMALL_FILES = 500
_NOBODY_THERE = "http://127.0.0.1:1/nobody"
_TASKS_AT_ONCE = 60
_MOST_WAITING = 400
_KILL_EVERY_S = 7.0
_KILL_QUEUE_EVERY_S = 61.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line."""

    seconds: float
    users: int
    every_s: float
    seed: int
    kill: bool


class Customer:
    """What one user does, in a process of their own, until it is killed."""

    def __init__(self, socket: Path, base: str, seed: int) -> None:
        self._socket = socket
        self._base = base
        self._random = random.Random(seed)
        self._folder = Path.home() / "files"
        self._ids: list[int] = []

    def work(self) -> None:
        """Do one thing after the other."""
        deeds = (self._add, self._add, self._look, self._steer, self._follow, self._tidy)
        while True:
            with contextlib.suppress(Refused, ConnectionError, FileNotFoundError):
                self._random.choice(deeds)()
            time.sleep(self._random.uniform(0.05, 0.4))

    def _url(self) -> str:
        kind = self._random.random()
        if kind < 0.85:
            return f"{self._base}small/{self._random.randrange(_SMALL_FILES)}.bin"
        if kind < 0.93:
            return f"{self._base}large.bin"
        return self._base + "missing" if kind < 0.98 else _NOBODY_THERE

    def _add(self) -> None:
        with Wire(self._socket) as wire:
            counts = wire.call("stats")["tasks"]
            if counts["enqueued"] + counts["retrying"] > _MOST_WAITING:
                return
            urls = [self._url() for _ in range(self._random.randrange(1, _TASKS_AT_ONCE))]
            self._ids = wire.call("add", urls=urls, dir=str(self._folder))["ids"]

    def _look(self) -> None:
        with Wire(self._socket) as wire:
            wire.call("list", limit=100)
            wire.call("stats")
            for task_id in self._ids[:3]:
                wire.call("status", id=task_id)
                wire.call("log", id=task_id)

    def _steer(self) -> None:
        with Wire(self._socket) as wire:
            for task_id in self._random.sample(self._ids, min(3, len(self._ids))):
                with contextlib.suppress(Refused):  # it may be over
                    wire.call(self._random.choice(("cancel", "retry", "pause", "resume")), ids=[task_id])

    def _follow(self) -> None:
        with Wire(self._socket) as wire:
            wire.call("watch", ids=self._ids or None)
            time.sleep(self._random.uniform(0.0, 2.0))  # what comes meanwhile is not read

    def _tidy(self) -> None:
        for path in self._folder.glob("[!.]*"):
            path.unlink()


@contextlib.contextmanager
def customer(user: User, daemon: Daemon, base: str, seed: int) -> Iterator[None]:
    """Run a customer."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(sorted(user.groups))
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
            os.environ["HOME"] = str(user.home)
            Customer(daemon.socket, base, seed).work()
        except BaseException:  # noqa: BLE001  it is said, and that customer is gone
            traceback.print_exc()
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


class Meter:
    """Looks at a daemon's processes and its database."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._database = daemon.state_dir

    def look(self) -> dict[str, float]:
        """Return the columns of one line."""
        family = self._daemon.family()
        found: dict[str, float] = {}
        named = {"supervisor": psutil.Process(self._daemon.pid), "queue": family.manager, "fork": family.forkserver}
        for name, process in named.items():
            memory, files, threads = _of(process)
            found |= {f"{name} MiB": memory, f"{name} fds": files}
            if name != "fork":
                found[f"{name} threads"] = threads
        workers = [_of(worker) for worker in family.workers]
        found["workers"] = len(workers)
        found["worker MiB"] = max((memory for memory, _, _ in workers), default=0.0)
        found["worker fds"] = max((files for _, files, _ in workers), default=0)
        found["database MiB"] = sum(path.stat().st_size for path in self._database.glob("*.db*")) / MIB
        with self._daemon.connect() as wire:
            counts = wire.call("stats", all=True)["tasks"]
        found["waiting"] = counts["enqueued"] + counts["retrying"]
        found["settled"] = sum(counts[state] for state in ("finished", "failed", "cancelled", "cleared"))
        return found


def _of(process: psutil.Process | None) -> tuple[float, int, int]:
    """Return a process's proportional memory in MiB, its descriptors and its threads."""
    with contextlib.suppress(*Gone, OSError):
        if process is not None:
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1]) / 1024, process.num_fds(), process.num_threads()
    return 0.0, 0, 0


def soak(options: Options, daemon: Daemon) -> list[tuple[float, dict[str, float]]]:
    """Look at the daemon for as long as asked, and kill what works for it."""
    meter = Meter(daemon)
    chooser = random.Random(options.seed)
    began = time.monotonic()
    kill_at, kill_queue_at = began + _KILL_EVERY_S, began + _KILL_QUEUE_EVERY_S
    lines: list[tuple[float, dict[str, float]]] = []
    while (now := time.monotonic()) < began + options.seconds:
        time.sleep(min(1.0, max(0.0, began + options.seconds - now)))
        if options.kill and now >= kill_at:
            kill_at = now + _KILL_EVERY_S
            _kill(chooser.choice(daemon.family().workers or (None,)))
        if options.kill and now >= kill_queue_at:
            kill_queue_at = now + _KILL_QUEUE_EVERY_S
            _kill(daemon.family().manager)
        if now >= began + options.every_s * len(lines):
            columns = meter.look()
            if not lines:
                print("     s  " + "  ".join(columns), flush=True)
            lines.append((now - began, columns))
            values = [
                f"{value:{len(name)}.{'1f' if name.endswith('MiB') else '0f'}}" for name, value in columns.items()
            ]
            print(f"{now - began:6.0f}  " + "  ".join(values), flush=True)
    return lines


def _kill(process: psutil.Process | None) -> None:
    with contextlib.suppress(*Gone):
        if process is not None:
            process.kill()


def growth_per_hour(points: list[tuple[float, float]]) -> float:
    """Return the slope of the line that fits best."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return 3600 * sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def report(lines: list[tuple[float, dict[str, float]]]) -> None:
    """Print by how much each column grows."""
    second_half = lines[len(lines) // 2 :]
    if len(second_half) < 2:
        return
    print("\ncolumn               first    at half  last     growth an hour, by the second half")
    for name, last in lines[-1][1].items():
        growth = growth_per_hour([(at, columns[name]) for at, columns in second_half])
        print(f"{name:20} {lines[0][1][name]:<8.1f} {second_half[0][1][name]:<8.1f} {last:<8.1f} {growth:+.1f}")


def _options() -> Options:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("seconds", nargs="?", type=float, default=300.0)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between lines")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--no-kill", action="store_true", help="kill nothing")
    found = parser.parse_args()
    return Options(
        seconds=found.seconds, users=found.users, every_s=found.every, seed=found.seed, kill=not found.no_kill
    )


def _files(server: Nginx) -> None:
    make_small_files(server.files / "small", _SMALL_FILES, 10 * 1024)
    make_file(server.files / "large.bin", 8 * MIB)


def main() -> None:
    """Soak."""
    options = _options()
    print(f"seed {options.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="autodl-soak-"))
    folder.chmod(0o755)
    names = [f"u{number}" for number in range(options.users)]
    try:
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(nginx(folder / "nginx"))
            _files(server)
            users = stack.enter_context(accounts(*names))
            (folder / "daemon").mkdir()
            daemon = Daemon(folder / "daemon", config=_CONFIG)
            stack.callback(daemon.end_all)
            daemon.start()
            for number, user in enumerate(users.values()):
                stack.enter_context(customer(user, daemon, server.base, options.seed + number))
            lines = soak(options, daemon)
            defects = daemon.defects()
        report(lines)
        print("\ndefects in the log:", *(defects or ["none"]), sep="\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
