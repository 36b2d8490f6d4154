"""Processes that can't be made, have no descriptors left, or stand still: the daemon waits it out and goes on."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support.accounts import accounts
from support.daemon import REPO, SETTLED, Task
from support.faulty import FaultyDaemon, check_files, digest, open_files_of
from support.nginx import Nginx, Served
from support.process_limit import process_limit
from support.strace import Strace, fail_at
from support.waiting import wait_until

MakeFaulty = Callable[..., FaultyDaemon]

CONFIG = """
max_tasks_num = 2
[transfer]
min_free_bytes = 0
connections = 1
[retry]
max_attempts = 0
first_delay_s = 0.05
max_delay_s = 0.2
[worker]
answer_timeout_s = 4
"""


def queue(daemon: FaultyDaemon, nginx: Nginx, *names: str, slow: bool = False) -> dict[int, Served]:
    """Queue files."""
    size = 600_000 if slow else 2000
    files = [nginx.file(f"processes/{name}.bin", size, rate="150k") for name in names]
    ids = daemon.queue([one.slow_url if slow else one.url for one in files])
    return dict(zip(ids, files, strict=True))


def has_ended(process: psutil.Process) -> bool:
    """Tell whether a process is over, whether or not its parent has heard of it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("free", [0, 3, 5])
def test_a_daemon_without_free_descriptors_goes_on_when_there_are_some(
    make_faulty: MakeFaulty, nginx: Nginx, free: int
) -> None:
    daemon = make_faulty(config=CONFIG)
    daemon.revive()
    served = queue(daemon, nginx, "first", slow=True)
    daemon.wait_for(next(iter(served)), lambda task: task["bytes_done"] > 0, "bytes come")
    supervisor = psutil.Process(daemon.pid)
    [worker] = wait_until(lambda: daemon.family().workers, "a worker lives")
    before = supervisor.rlimit(psutil.RLIMIT_NOFILE)
    with daemon.connect() as wire:
        supervisor.rlimit(psutil.RLIMIT_NOFILE, (open_files_of(daemon.pid) + free, before[1]))
        worker.kill()
        one = nginx.file("processes/second.bin", 2000)
        [task_id] = wire.call("add", urls=[one.url], dir=str(daemon.files))["ids"]
        served[task_id] = one
        wait_until(lambda: "Too many open files" in daemon.log(), "it is said", seen=daemon.log_end)
        assert wire.call("status", id=task_id)["state"] in ("enqueued", "retrying")
        supervisor.rlimit(psutil.RLIMIT_NOFILE, before)
    check_files(daemon, daemon.settle(served), served)
    assert daemon.deaths == 0
    assert "the forkserver ended" not in daemon.log()


def test_who_looks_for_orphans_without_a_free_descriptor_finds_none_and_goes_on() -> None:
    code = """
import resource
from autodl_lib.supervisor.workers.orphans import end_orphans
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
print(end_orphans((), ()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_forks_that_fail_are_said_in_a_sentence_and_tried_again(
    make_faulty: MakeFaulty, nginx: Nginx, place: Path
) -> None:
    daemon = make_faulty(config=CONFIG)
    daemon.revive()
    served = queue(daemon, nginx, "running", slow=True)
    daemon.wait_for(next(iter(served)), lambda task: task["bytes_done"] > 0, "bytes come")
    forkserver = daemon.family().forkserver
    assert forkserver is not None
    with Strace(forkserver.pid, place / "trace", *fail_at("clone,clone3,fork,vfork", "EAGAIN", "1+")):
        served |= queue(daemon, nginx, "after-it-1", "after-it-2")
        wait_until(lambda: has_ended(forkserver), "it has ended")
    assert "forkserver: Resource temporarily unavailable" in daemon.log()
    tasks = daemon.settle(served)
    check_files(daemon, tasks, served)
    assert daemon.deaths == 0


def test_a_daemon_that_may_start_no_process_and_no_thread_goes_on_when_it_may(
    make_faulty: MakeFaulty, nginx: Nginx
) -> None:
    daemon = make_faulty(config=CONFIG)
    daemon.revive()
    served = queue(daemon, nginx, "before", slow=True)
    daemon.wait_for(next(iter(served)), lambda task: task["bytes_done"] > 0, "bytes come")
    manager, forkserver = wait_until(lambda: daemon.family().manager, "the manager lives"), daemon.family().forkserver
    assert forkserver is not None
    with process_limit([daemon.pid, forkserver.pid, manager.pid]) as limit:
        limit.close()
        served |= queue(daemon, nginx, "within-1", "within-2")
        manager.kill()
        # One is started again in vain, by a forkserver that may fork no more, or else without a thread to serve with.
        wait_until(lambda: daemon.log().count("the report queue ended") > 1, "it is tried again", seen=daemon.log_end)
        assert daemon.call("stats")["max_tasks_num"] == 2
        words = "forkserver: Resource temporarily unavailable"
        wait_until(lambda: words in daemon.log(), "it is said", seen=daemon.log_end)
        limit.open()
        check_files(daemon, daemon.settle(served), served)
        assert daemon.stop() == 0
    assert daemon.deaths == 0


def test_a_user_who_may_have_no_more_processes_and_threads_has_their_files_all_the_same(
    make_faulty: MakeFaulty, nginx: Nginx
) -> None:
    daemon = make_faulty(config=f"{CONFIG}processes = 1\n")
    daemon.revive()
    files = [
        nginx.file(f"few/{name}.bin", size, rate="900k")
        for name, size in (("large", 500_000), ("small", 200), ("empty", 0))
    ]
    urls = [files[0].slow_url, *(one.url for one in files[1:])]
    with accounts("alice") as users:
        alice = users["alice"]
        ids = alice.call(daemon.socket, "add", urls=urls, dir=str(alice.home))["ids"]

        def tasks() -> list[Task] | None:
            found = [alice.call(daemon.socket, "status", id=task_id) for task_id in ids]
            return found if all(task["state"] in SETTLED for task in found) else None

        for task, one in zip(wait_until(tasks, "all are settled", seen=daemon.log_end) or [], files, strict=True):
            assert task["state"] == "finished", (task, daemon.log_end())
            assert digest(Path(task["dest"])) == one.sha256
        assert "was lost" not in daemon.log()
        assert daemon.stop() == 0


def test_a_manager_and_a_forkserver_that_stand_still_are_replaced(make_faulty: MakeFaulty, nginx: Nginx) -> None:
    daemon = make_faulty(config=CONFIG)
    daemon.revive()
    served = queue(daemon, nginx, "flowing", slow=True)
    daemon.wait_for(next(iter(served)), lambda task: task["bytes_done"] > 0, "bytes come")
    manager = wait_until(lambda: daemon.family().manager, "the manager lives")
    forkserver = daemon.family().forkserver
    assert forkserver is not None
    for process in (manager, forkserver):
        process.send_signal(signal.SIGSTOP)
    served |= queue(daemon, nginx, "waiting-1", "waiting-2")
    tasks = daemon.settle(served, timeout_s=120)
    check_files(daemon, tasks, served)
    assert "forkserver did not answer" in daemon.log()
    wait_until(lambda: has_ended(manager), "it is gone")
    assert daemon.deaths == 0


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    """Mount a small file system."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_destination_is_waited_out(make_faulty: MakeFaulty, nginx: Nginx) -> None:
    daemon = make_faulty(config=CONFIG)
    daemon.revive()
    with mounted(daemon.files, "1m"):
        filler = daemon.files / "filler"
        filler.write_bytes(bytes(800_000))
        served = queue(daemon, nginx, "too-big", slow=True)
        served |= queue(daemon, nginx, "small")
        [big, small] = served
        daemon.wait_for(big, lambda task: task["error"] is not None and task["error"]["code"] == "disk_full", "full")
        daemon.settle([small])
        filler.unlink()
        check_files(daemon, daemon.settle(served), served)


def test_a_destination_that_becomes_read_only_fails_with_that_and_is_taken_up_where_it_was(
    make_faulty: MakeFaulty, nginx: Nginx
) -> None:
    daemon = make_faulty(config=CONFIG)
    daemon.revive()
    with mounted(daemon.files, "8m"):
        served = queue(daemon, nginx, "read-only", slow=True)
        [task_id] = served
        daemon.wait_for(task_id, lambda task: task["bytes_done"] > 100_000, "bytes come")
        daemon.steer("pause", task_id)
        remount = ["mount", "-o", "remount,{}", str(daemon.files)]
        subprocess.run([word.format("ro") for word in remount], check=True)
        daemon.steer("resume", task_id)
        failed = daemon.wait_for(task_id, lambda task: task["state"] == "failed", "it fails")
        assert "Read-only" in failed["error"]["message"]
        subprocess.run([word.format("rw") for word in remount], check=True)
        daemon.steer("retry", task_id)
        check_files(daemon, daemon.settle(served), served)
        assert nginx.fetches("read-only.bin", at_least=2)[-1].status == 206
