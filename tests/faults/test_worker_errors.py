"""What the kernel refuses a worker is waited out, or said; no file is wrong, comes twice, or is left over.

AUTODL_FAULT_ERRORS sets how many cases are tried (0: all), AUTODL_FAULT_SEED which; or it names one: `fsync EIO 2`.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import SETTLED, Task
from support.faulty import FaultyDaemon, check_files
from support.nginx import Nginx, Served
from support.strace import Strace, fail_at
from support.waiting import wait_until

SEED = int(os.environ.get("AUTODL_FAULT_SEED") or random.randrange(10**9))
CASES = os.environ.get("AUTODL_FAULT_ERRORS", "8")

FAILURES = {
    "pwritev2": ("ENOSPC", "EIO", "EDQUOT", "EROFS"),
    "pwrite64": ("ENOSPC", "EIO", "EROFS"),
    "openat": ("EMFILE", "ENFILE", "ENOMEM", "EIO", "ENOSPC", "EROFS"),
    "fsync": ("EIO", "ENOSPC"),
    "fdatasync": ("EIO", "ENOSPC"),
    "io_submit": ("EAGAIN", "ENOMEM", "EINVAL", "EPERM"),
    "io_getevents": ("EINTR", "EPERM", "ENOSYS"),
    "renameat2": ("EIO", "ENOSPC", "EROFS", "ENOMEM", "EINVAL"),
    "unlinkat": ("EIO", "EROFS", "ENOMEM"),
    "renameat": ("EIO", "ENOSPC", "EROFS"),
    "flock": ("EINTR", "EIO", "ENOMEM"),
    "ftruncate": ("EIO", "EROFS"),
    "newfstatat": ("EIO", "ENOMEM"),
    "faccessat2": ("EIO", "ENOMEM", "ENOSYS"),
    "statfs": ("EIO", "ENOMEM"),
    "socket": ("EMFILE", "ENFILE", "ENOBUFS"),
    "mmap": ("ENOMEM",),
    "sendto": ("ENOMEM",),
    "recvfrom": ("ENOMEM",),
    "epoll_ctl": ("ENOMEM", "ENOSPC"),
    "pipe2": ("EMFILE", "ENFILE"),
    "splice": ("ENOSPC", "EIO", "EINVAL", "ENOMEM"),
}
ALWAYS = (
    ("fsync", "EIO", "4+2"),
    ("newfstatat", "EIO", "4+2"),
    ("openat", "EROFS", "4+2"),
    ("openat", "EMFILE", "1..5"),
)
"""Cases that files came twice in, or were in their own way."""

WHEN = ("1", "2", "3", "4+2", "1..5")

CONFIG = """
max_tasks_num = 1
[transfer]
min_free_bytes = 0
connections = 2
[retry]
max_attempts = 8
first_delay_s = 0.02
max_delay_s = 0.1
"""

HIDDEN = ("part", "ctl")
MakeFaulty = Callable[..., FaultyDaemon]


def cases() -> list[tuple[str, str, str]]:
    """Return which calls fail how, and when."""
    if not CASES.isdigit():
        call, error, when = CASES.split()
        return [(call, error, when)]
    everything = [
        (call, error, when) for call, errors in FAILURES.items() for error, when in itertools.product(errors, WHEN)
    ]
    print(f"AUTODL_FAULT_SEED={SEED}, {len(everything)} cases")
    return [*ALWAYS, *random.Random(SEED).sample(everything, min(int(CASES) or len(everything), len(everything)))]


@pytest.mark.timeout(0)
def test_a_worker_that_is_refused_anything_brings_every_file_in_the_end(
    make_faulty: MakeFaulty, nginx: Nginx, place: Path
) -> None:
    daemon = make_faulty(config=CONFIG)
    daemon.revive()
    complaints = []
    for number, (call, error, when) in enumerate(cases()):
        print(f"worker: {call} {error} {when}", flush=True)
        worker = warm(daemon, nginx, number)
        files = Files(daemon, nginx, number)
        with Strace(worker, place / "trace", *fail_at(call, error, when)):
            files.queue()
        try:
            files.check(unlinks_fail=call == "unlinkat")
        except AssertionError as complaint:
            complaints.append(f"{call} {error} {when}: {complaint}")
            print(complaints[-1], flush=True)
        for path in daemon.files.iterdir():
            path.unlink()
    assert complaints == [], "\n".join(complaints)
    assert daemon.deaths == 0


def warm(daemon: FaultyDaemon, nginx: Nginx, number: int) -> int:
    """Return the pid of a worker that has nothing to do."""
    daemon.settle(daemon.queue([nginx.file(f"errors/{number}-warm.bin", 10).url]))
    [worker] = wait_until(lambda: daemon.family().workers, "a worker lives")
    (daemon.files / f"{number}-warm.bin").unlink()
    return worker.pid


def has_met_it(task: Task) -> bool:
    """Return whether a task has come to its end, or to a full disk, which it waits out for ever."""
    return task["state"] in SETTLED or (task["error"] is not None and task["error"]["code"] == "disk_full")


class Files:
    """Small files and a large one, one that replaces another, and one that is paused and goes on."""

    def __init__(self, daemon: FaultyDaemon, nginx: Nginx, number: int) -> None:
        self._daemon = daemon
        self._nginx = nginx
        self._number = number
        self._served: dict[int, Served] = {}

    def queue(self) -> None:
        """Queue them, and wait until each is finished, has failed, or waits for the disk."""
        daemon = self._daemon
        [slow] = self._queue("slow", 120_000, slow=True)
        (daemon.files / f"{self._number}-replaced.bin").write_bytes(b"what is to be replaced")
        self._queue("replaced", 2000, on_conflict="overwrite")
        self._queue("large", 24_000_000)
        for name in ("one", "two", "three"):
            self._queue(name, 2000)
        daemon.wait_for(slow, lambda task: has_met_it(task) or task["bytes_done"] > 0, "bytes")
        daemon.steer("pause", slow)
        daemon.steer("resume", slow)
        for task_id in self._served:
            daemon.wait_for(task_id, has_met_it, "it is over, or waits for the disk")

    def check(self, *, unlinks_fail: bool) -> None:
        """What has failed says why, and succeeds when it is tried again; look at what came of it."""
        daemon = self._daemon
        failed = [task for task in daemon.settle(self._served).values() if task["state"] == "failed"]
        for task in failed:
            assert task["error"]["code"] in ("disk", "permission", "folder", "resources", "network"), task
            assert "defect" not in task["error"]["message"], task
            daemon.steer("retry", task["id"])
        print("  failed:", [task["error"]["message"] for task in failed])
        tasks = daemon.settle(self._served)
        # What can't be unlinked at first is left as it is: a second name of a file that is complete.
        allowed = [f".{one.name.rpartition('/')[2]}.autodl-{kind}" for one in self._served.values() for kind in HIDDEN]
        check_files(daemon, tasks, self._served, allowed if unlinks_fail else ())

    def _queue(self, kind: str, size_bytes: int, *, slow: bool = False, **params: str) -> list[int]:
        one = self._nginx.file(f"errors/{self._number}-{kind}.bin", size_bytes, rate="400k")
        ids = self._daemon.queue([one.slow_url if slow else one.url], **params)
        self._served.update(dict.fromkeys(ids, one))
        return ids
