"""kill -9 at the Nth system call of a worker and of the daemon, around publishing and commits: a sample of all N.

AUTODL_FAULT_CALLS sets how many of each are tried (0: all of them), AUTODL_FAULT_SEED which.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.faulty import FaultyDaemon, check_files
from support.nginx import Nginx, Served
from support.strace import Strace, calls_of, kill_at, sample_of
from support.waiting import wait_until

SEED = int(os.environ.get("AUTODL_FAULT_SEED") or random.randrange(10**9))
SAMPLE = int(os.environ.get("AUTODL_FAULT_CALLS", "12"))

WORKER_CALLS = (
    *("openat", "pwrite64", "pwritev2", "fsync", "fdatasync", "renameat2", "unlinkat", "renameat", "ftruncate"),
    *("flock", "sendto", "write", "utimensat", "close", "newfstatat", "mkdir", "statfs", "io_submit"),
    *("io_getevents", "sync_file_range", "read", "epoll_wait"),
)
DAEMON_CALLS = (
    *("pwrite64", "fdatasync", "fsync", "ftruncate", "write", "sendto", "recvfrom", "read", "pread64", "close"),
    *("fcntl", "unlink", "openat", "accept4", "epoll_wait"),
)

CONFIG = """
max_tasks_num = 1
[transfer]
min_free_bytes = 0
connections = 2
[retry]
max_attempts = 0
first_delay_s = 0.02
max_delay_s = 0.1
"""

MakeFaulty = Callable[..., FaultyDaemon]


class Load:
    """Work of all kinds for one worker: small files, one that replaces another, one that is paused and goes on."""

    def __init__(self, daemon: FaultyDaemon, nginx: Nginx) -> None:
        self._daemon = daemon
        self._nginx = nginx
        self._number = 0
        self.served: dict[int, Served] = {}

    def run(self) -> None:
        """Queue it, and see it through."""
        daemon = self._daemon
        self._number += 1
        replaced = self._file("replaced", 2000)
        (daemon.files / replaced.name.rpartition("/")[2]).write_bytes(b"what is to be replaced")
        [slow] = self._queue([self._file("slow", 120_000)], slow=True)
        small = [self._file(f"small-{number}", 2000) for number in range(3)]
        self._queue([replaced], on_conflict="overwrite")
        self._queue(small)
        daemon.wait_for(slow, lambda task: task["state"] == "finished" or task["bytes_done"] > 0, "bytes come")
        daemon.steer("pause", slow)
        daemon.steer("resume", slow)
        self.settle()

    def settle(self) -> None:
        """Wait for all, and look at what came of it."""
        check_files(self._daemon, self._daemon.settle(self.served), self.served)
        for path in self._daemon.files.iterdir():
            path.unlink()
        self.served.clear()

    def warm(self) -> int:
        """Return the pid of a worker that has nothing to do."""
        self._number += 1
        self._queue([self._file("warm", 10)])
        self.settle()
        [worker] = wait_until(lambda: self._daemon.family().workers, "a worker lives")
        return worker.pid

    def _queue(self, files: list[Served], *, slow: bool = False, **params: Any) -> list[int]:
        ids = self._daemon.queue([one.slow_url if slow else one.url for one in files], **params)
        self.served.update(zip(ids, files, strict=True))
        return ids

    def _file(self, kind: str, size_bytes: int) -> Served:
        return self._nginx.file(f"calls/{self._number}-{kind}.bin", size_bytes, rate="400k")


def chosen(text: str, calls: tuple[str, ...]) -> list[tuple[str, int]]:
    """Return which calls are tried, and print what repeats it."""
    everything = sample_of(calls_of(text), calls)
    print(f"AUTODL_FAULT_SEED={SEED}, {len(everything)} calls of {len({call for call, _ in everything})} kinds")
    if not SAMPLE or len(everything) <= SAMPLE:
        return everything
    dice = random.Random(SEED)
    kinds = sorted({call for call, _ in everything})
    dice.shuffle(kinds)
    numbers = {kind: [number for call, number in everything if call == kind] for kind in kinds}
    return [(kind, dice.choice(numbers[kind])) for kind in (kinds * SAMPLE)[:SAMPLE]]


@pytest.mark.timeout(0)
def test_a_worker_killed_at_any_system_call_loses_nothing(make_faulty: MakeFaulty, nginx: Nginx, place: Path) -> None:
    daemon = make_faulty(config=CONFIG)
    daemon.revive()
    load = Load(daemon, nginx)
    with Strace(load.warm(), place / "record", f"--trace={','.join(WORKER_CALLS)}") as strace:
        load.run()
    tried = chosen(strace.text(), WORKER_CALLS)
    for call, number in tried:
        print(f"worker: {call} {number}", flush=True)
        with Strace(load.warm(), place / "trace", *kill_at(call, number)):
            load.run()
    assert daemon.deaths == 0
    assert daemon.log().count("was lost: killed by signal 9") >= 2


@pytest.mark.timeout(0)
def test_a_daemon_killed_at_any_system_call_loses_nothing(make_faulty: MakeFaulty, nginx: Nginx, place: Path) -> None:
    daemon = make_faulty(config=CONFIG)
    daemon.revive()
    load = Load(daemon, nginx)
    with Strace(daemon.pid, place / "record", f"--trace={','.join(DAEMON_CALLS)}") as strace:
        load.run()
    tried = chosen(strace.text(), DAEMON_CALLS)
    for call, number in tried:
        print(f"daemon: {call} {number}", flush=True)
        daemon.revive()
        with Strace(daemon.pid, place / "trace", *kill_at(call, number)):
            load.run()
    assert daemon.deaths >= 2  # a run in which less is asked for does not come to the later calls
