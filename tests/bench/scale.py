"""A long queue: `python tests/bench/scale.py [TASKS] [--users N]`, as root; 1,000,000 tasks of 50 users if not said.

It makes accounts, a daemon, and the tasks, by adds over the socket as each of the users. Then it measures what the
queue's length could cost: memory, adds, answers, the choice of the next task, the start, and how long another user's
`status` takes while everything is cleared, cancelled, followed and forgotten. Figures are printed as they come, with
what was asked for behind them; nothing is asserted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
from scale_clients import Child, Wire, add_one_by_one, ask, ask_until_ended, fill, follow_until_ended
from scale_planning import planning_us
from servers import nginx
from support.accounts import User, accounts
from support.daemon import AUTODL, Daemon

FEWEST_USERS = 5
MIB = 1 << 20
FILLERS = 2
"""Users who add at the same time, as many as there are cores."""

COMMAND_LINES = 100_000
SINGLES = 20_000
ASKED = 500
SMALL = 1000
FEW = 9000
RUN = 2000
"""Tasks that are downloaded to see what one costs the supervisor."""

CONFIG = "[transfer]\nmin_free_bytes = 0\n[limits]\nqueued = 100000000\n"
NOWHERE = "http://127.0.0.1:1/"


@dataclass(frozen=True, slots=True)
class Bench:
    """What all measurements have at hand: the users who have tasks, and one who has a single one and asks."""

    daemon: Daemon
    users: list[User]
    quiet: User
    quiet_task: int

    def root(self, method: str, **params: Any) -> Any:
        """Ask as root."""
        with Wire(self.daemon.socket) as wire:
            return wire.call(method, **params)

    def memory(self) -> str:
        """Say how much memory the supervisor has, and had at most."""
        info = psutil.Process(self.daemon.pid).memory_full_info()
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
        return f"rss {info.rss / MIB:.0f}, pss {info.pss / MIB:.0f}, at most {peak / 1024:.0f} MiB"

    def cpu_s(self) -> float:
        """Return the seconds of CPU that the supervisor has taken."""
        times = psutil.Process(self.daemon.pid).cpu_times()
        return times.user + times.system

    def disk(self) -> str:
        """Say how large the queue's files are."""
        sizes = [
            f"{path.name} {path.stat().st_size / MIB:.0f} MiB" for path in sorted(self.daemon.state_dir.glob("queue*"))
        ]
        return ", ".join(sizes)


def say(what: str, figure: str, asked: str = "") -> None:
    print(f"{what:58} {figure}{f'   (asked: {asked})' if asked else ''}", flush=True)


def spread(times_ms: list[float]) -> str:
    times = sorted(times_ms)
    return f"median {times[len(times) // 2]:.2f}, 99% {times[int(len(times) * 0.99)]:.2f}, worst {times[-1]:.1f} ms"


def fill_all(bench: Bench, tasks: int, base: str = NOWHERE) -> None:
    """Have each user add their part of the tasks."""
    each = tasks // len(bench.users)
    began_mono, began_cpu = time.monotonic(), bench.cpu_s()
    left = list(bench.users)
    running: list[Child] = []
    while left or running:
        while left and len(running) < FILLERS:
            user = left.pop()
            running.append(Child(user, lambda user=user: fill(user, bench.daemon.socket, each, base)))  # type: ignore[misc]
        running.pop(0).result()
    elapsed_s = time.monotonic() - began_mono
    cpu_s = bench.cpu_s() - began_cpu
    total = each * len(bench.users)
    say(
        f"{total} added over the socket by {len(bench.users)} users",
        f"{total / elapsed_s:.0f}/s, CPU {1e6 * cpu_s / total:.0f} us each",
    )


def measure_adds(bench: Bench) -> None:
    """Add by the command line in bulk, and one by one over one connection."""
    user = bench.users[0]
    listed = bench.daemon.folder / "urls.txt"
    listed.write_text("".join(f"{NOWHERE}a/list/of/many/file-{n:07}.bin\n" for n in range(COMMAND_LINES)))
    listed.chmod(0o644)
    command = [*AUTODL, "add", "-d", "/tmp", "-i", str(listed), "--socket", str(bench.daemon.socket)]
    environment = bench.daemon.environment(HOME=str(user.home))
    began_mono, began_cpu = time.monotonic(), bench.cpu_s()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env=environment, user=user.uid, group=user.gid, cwd="/"
    )
    elapsed_s, cpu_s = time.monotonic() - began_mono, bench.cpu_s() - began_cpu
    figure = f"{COMMAND_LINES / elapsed_s:.0f}/s, CPU of the supervisor {1e6 * cpu_s / COMMAND_LINES:.0f} us each"
    say(f"`autodl add -i`, {COMMAND_LINES} lines, the whole command", figure, ">= 25000/s")
    began_cpu = bench.cpu_s()
    elapsed_s = Child(user, lambda: add_one_by_one(bench.daemon.socket, SINGLES, NOWHERE)).result()
    figure = (
        f"{SINGLES / elapsed_s:.0f}/s, CPU of the supervisor {1e6 * (bench.cpu_s() - began_cpu) / SINGLES:.0f} us each"
    )
    say(f"single adds, pipelined on one connection, {SINGLES}", figure, ">= 5000/s")


QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "status": ("status", {}),
    "list, a page of 100": ("list", {"limit": 100}),
    "list, failed ones": ("list", {"limit": 100, "states": ["failed"]}),
    "list --reverse, a page of 100": ("list", {"limit": 100, "reverse": True}),
    "list --host, a page of 100": ("list", {"limit": 100, "host": "127.0.0.1"}),
    "list --since a moment ago": ("list", {"limit": 100, "since": time.time() - 10}),
    "list --label, none has it": ("list", {"limit": 100, "label": "films"}),
    "stats": ("stats", {}),
    "explain": ("explain", {}),
    "history": ("history", {"limit": 100}),
}
QUESTIONS_OF_ROOT: dict[str, tuple[str, dict[str, Any]]] = {
    "list --all, a page of 100": ("list", {"limit": 100, "all": True}),
    "list --all, failed ones": ("list", {"limit": 100, "all": True, "states": ["failed"]}),
    "list --all --host, a page of 100": ("list", {"limit": 100, "all": True, "host": "127.0.0.1"}),
    "stats --all": ("stats", {"all": True}),
    "history --all": ("history", {"limit": 100, "all": True}),
}


def measure_questions(bench: Bench) -> None:
    """Ask every question as a user with many tasks, and as root."""
    path, user = bench.daemon.socket, bench.users[-1]
    last = user.call(path, "list", limit=5000)["tasks"][-1]["id"]
    for name, (method, params) in QUESTIONS.items():
        more = {"id": last} if method in ("status", "explain") else {}
        times = Child(user, lambda m=method, p={**params, **more}: ask(path, m, ASKED, **p)).result()  # type: ignore[misc]
        say(f"  {name}", spread(times), "<= 5 ms at the daemon")
    for name, (method, params) in QUESTIONS_OF_ROOT.items():
        say(f"  {name}", spread(ask(path, method, ASKED // 10, **params)))


@contextmanager
def another_asks(bench: Bench, what: str) -> Iterator[None]:
    """Measure another user's `status` while something happens."""
    asking = Child(bench.quiet, lambda: ask_until_ended(bench.daemon.socket, bench.quiet_task))
    time.sleep(0.1)
    began_mono = time.monotonic()
    yield
    elapsed_s = time.monotonic() - began_mono
    asking.end()
    say(f"  {what}", f"{elapsed_s:.2f} s; another's status: {spread(asking.result())}")


def cancel_all(bench: Bench, user: User) -> None:
    """Cancel all that a user has, in requests of as many as one takes."""
    path = bench.daemon.socket

    def work() -> None:
        with Wire(path) as wire:
            while ids := [task["id"] for task in wire.call("list", states=["enqueued"], limit=5000)["tasks"]]:
                wire.call("cancel", ids=ids)

    user.do(work)


def measure_large_changes(bench: Bench) -> None:
    """Do what concerns everything, while another user asks."""
    path, many = bench.daemon.socket, bench.users
    with another_asks(bench, "nothing"):
        time.sleep(1.0)
    with another_asks(bench, "pause --all, 40 times"):
        for _ in range(20):
            bench.root("pause", all=True)
            bench.root("pause", all=True)
    with another_asks(bench, "watch of all, by root: the first picture"), Wire(path) as wire:
        wire.call("watch", all=True)
    following = Child(many[1], lambda: follow_until_ended(path))
    with another_asks(bench, f"cancel of a user's {count(bench, many[1])} by number, followed"):
        cancel_all(bench, many[1])
    following.end()
    say("    told to the follower", str(following.result()))
    with another_asks(bench, f"clear of a user's {count(bench, many[2])}"):
        Child(many[2], lambda: call(path, "clear")).result()
    following = Child(many[3], lambda: follow_until_ended(path))
    with another_asks(bench, "clear --all of the rest, followed by one of them"):
        bench.root("clear", all=True)
    following.end()
    say("    told to the follower", str(following.result()))


def call(path: Path, method: str) -> Any:
    with Wire(path) as wire:
        return wire.call(method)


def count(bench: Bench, user: User) -> int:
    """Return how many tasks of a user are enqueued."""
    number = user.call(bench.daemon.socket, "stats")["tasks"]["enqueued"]
    assert isinstance(number, int)
    return number


def measure_forgetting(bench: Bench) -> None:
    """Have settled tasks and history forgotten: keep few, and start anew."""
    bench.daemon.stop()
    bench.daemon.config.write_text(CONFIG + "[history]\nkeep_tasks = 100\nkeep_events = 100\n")
    bench.daemon.start()
    bench.root("pause", all=True)

    def are_forgotten() -> bool:
        tasks = bench.root("stats", all=True)["tasks"]
        return bool(sum(tasks.values()) <= 101 * (len(bench.users) + 1))

    with another_asks(bench, "history is forgotten in the background"):
        while not are_forgotten():
            time.sleep(0.5)
    say("memory after that", bench.memory())
    say("on disk after that", bench.disk())


def measure_start(bench: Bench, asked: str) -> None:
    """Stop and start."""
    bench.daemon.stop()
    began_mono = time.monotonic()
    bench.daemon.start()
    bench.quiet.call(bench.daemon.socket, "status", id=bench.quiet_task)
    say("start, until `status` is answered", f"{time.monotonic() - began_mono:.2f} s", asked)
    say("memory after the start", bench.memory())


def measure_running(bench: Bench, label: str) -> None:
    """Let tasks run, and print the supervisor's CPU for each; the server has no such files, so all fail at once."""

    def done() -> int:
        number = bench.root("stats", all=True)["tasks"]["failed"]
        assert isinstance(number, int)
        return number

    before, began_cpu = done(), bench.cpu_s()
    bench.root("resume", all=True)
    while done() < before + RUN:
        time.sleep(0.1)
    bench.root("pause", all=True)
    cost_ms = 1000 * (bench.cpu_s() - began_cpu) / (done() - before)
    say(f"supervisor's CPU for each task that has run, of {label}", f"{cost_ms:.3f} ms")


def main(tasks: int, users_num: int) -> None:
    """Run all."""
    names = [f"u{number}" for number in range(users_num)]
    with (
        accounts(*names, "quiet") as made,
        tempfile.TemporaryDirectory(prefix="autodl-s-") as folder,
        nginx(Path(folder) / "nginx") as server,
    ):
        Path(folder).chmod(0o755)
        daemon = Daemon(Path(folder), config=CONFIG).start()
        try:
            users = [made[name] for name in names]
            [task] = made["quiet"].call(daemon.socket, "add", urls=[NOWHERE], dir="/tmp", paused=True)["ids"]
            bench = Bench(daemon, users, made["quiet"], task)
            bench.root("pause", all=True)
            run(bench, tasks, server.base)
        finally:
            daemon.end_all()
            for defect in daemon.defects():
                print(defect)


def run(bench: Bench, tasks: int, base: str) -> None:
    """Run the measurements on one daemon; `base` is the URL that tasks are of."""
    say("memory at first", bench.memory())
    say("--- an empty queue", "")
    measure_adds(bench)
    bench.root("clear", all=True)
    fill_all(bench, SMALL, base)
    few_us = planning_us(bench.daemon, bench.users)
    fill_all(bench, FEW, base)
    measure_running(bench, f"{SMALL + FEW}")
    say(f"--- {tasks} tasks", "")
    fill_all(bench, tasks, base)
    say("memory with the tasks", bench.memory(), "<= 120 MiB")
    say("on disk", bench.disk())
    measure_start(bench, "<= 2 s")
    measure_questions(bench)
    measure_adds(bench)
    many_us = planning_us(bench.daemon, bench.users)
    for name, few in few_us.items():
        ratio = f"{few:.0f} us, {many_us[name]:.0f} us: x {many_us[name] / few:.2f}"
        say(f"next tasks, {name}: {SMALL}, then {tasks}", ratio, "<= x 1.5")
    measure_running(bench, f"{tasks}")
    say("memory now", bench.memory())
    measure_large_changes(bench)
    say("memory after clear", bench.memory(), "no more than before")
    fill_all(bench, tasks, base)
    bench.root("clear", all=True)
    say("memory after as many again, and clear", bench.memory(), "no more than before")
    measure_forgetting(bench)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=50)
    chosen = parser.parse_args()
    if chosen.users < FEWEST_USERS:
        parser.error(f"{FEWEST_USERS} users are needed at least")
    main(chosen.tasks, chosen.users)
