"""A worker is its user's process, who may kill, stop or hurry it as they like: that gets them nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from support.accounts import User, accounts
from support.daemon import QUICK, MakeDaemon
from support.nginx import Nginx
from support.waiting import wait_until


@pytest.fixture(scope="module")
def users() -> Iterator[dict[str, User]]:
    with accounts("alice", "bob") as made:
        yield made


def test_bytes_that_a_killed_worker_had_taken_are_counted(
    make_daemon: MakeDaemon, nginx: Nginx, users: dict[str, User]
) -> None:
    daemon = make_daemon(config=QUICK + "\n[limits]\nbytes_per_day = 400000\n").start()
    alice = users["alice"]
    served = nginx.file("own/killed.bin", 3_000_000)
    [task_id] = alice.call(daemon.socket, "add", urls=[served.slow_url])["ids"]
    seen = daemon.await_bytes(task_id, 250_000)["bytes_done"]
    [worker] = daemon.family().workers
    alice.call(daemon.socket, "pause")  # so that no other worker takes and counts any
    alice.do(lambda: os.kill(worker.pid, signal.SIGKILL))

    def counted() -> bool:
        return bool(alice.call(daemon.socket, "stats")["bytes"] >= seen)

    wait_until(counted, "they are counted", timeout_s=20, seen=lambda: alice.call(daemon.socket, "stats"))
    alice.call(daemon.socket, "resume")

    def spent() -> bool:
        return "of today are taken" in alice.call(daemon.socket, "explain", id=task_id)["reason"]

    wait_until(spent, "the day is spent", seen=lambda: daemon.status(task_id))


def test_a_user_can_kill_and_stop_no_worker_but_their_own(
    make_daemon: MakeDaemon, nginx: Nginx, users: dict[str, User]
) -> None:
    daemon = make_daemon().start()
    served = nginx.file("own/others.bin", 1_000_000)
    [task_id] = users["alice"].call(daemon.socket, "add", urls=[served.slow_url])["ids"]
    daemon.await_bytes(task_id)
    family = daemon.family()
    processes = [*family.workers, family.forkserver, family.manager]
    pids = [daemon.pid, *(process.pid for process in processes if process is not None)]
    assert len(pids) == 4

    def reached() -> list[int]:
        found = []
        for pid in pids:
            try:
                os.kill(pid, signal.SIGWINCH)
            except PermissionError:
                continue
            found.append(pid)
        return found

    assert users["bob"].do(reached) == []
    daemon.await_state(task_id, "finished")
