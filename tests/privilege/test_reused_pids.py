"""A number that was a process of ours, or a caller's, is somebody else's now: who it was is not decided by numbers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from support.accounts import User, accounts
from support.chosen_pid import fork_as
from support.daemon import REPO, Daemon
from support.nginx import Nginx
from support.rpc import Wire
from support.waiting import wait_until


@pytest.fixture(scope="module")
def users() -> Iterator[dict[str, User]]:
    with accounts("alice", "bob") as made:
        yield made


def sleep_as(user: User) -> None:
    os.setgroups([])
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    os.execv("/bin/sleep", ["sleep", "300"])


@contextlib.contextmanager
def bystander(pid: int, user: User) -> Iterator[psutil.Process]:
    """Have a process under a number, which must still be there at the end."""
    child = psutil.Process(fork_as(pid, lambda: sleep_as(user)))
    try:
        yield child
        assert child.status() != psutil.STATUS_ZOMBIE, "it was killed in a worker's place"
    finally:
        child.kill()
        os.waitpid(child.pid, 0)


def test_a_process_that_has_a_dead_worker_s_number_is_left_alone(
    daemon: Daemon, nginx: Nginx, users: dict[str, User]
) -> None:
    served = nginx.file("pids/slow.bin", 3_000_000)
    [task_id] = users["alice"].call(daemon.socket, "add", urls=[served.slow_url])["ids"]
    daemon.await_bytes(task_id)
    [worker] = daemon.family().workers
    supervisor = psutil.Process(daemon.pid)
    supervisor.suspend()  # so that it hears of the death when the number is another's already
    worker.kill()
    wait_until(lambda: not psutil.pid_exists(worker.pid), "the worker is reaped")
    with bystander(worker.pid, users["bob"]):
        supervisor.resume()
        daemon.await_bytes(task_id)
        users["alice"].call(daemon.socket, "cancel", ids=[task_id])
        assert daemon.stop() == 0


def test_a_caller_is_who_made_the_connection_whoever_has_their_number_later(
    daemon: Daemon, users: dict[str, User]
) -> None:
    """The process that connects ends, bob's gets its number, and the connection goes on: it is alice's."""
    reader, writer = os.pipe()
    wait, go = os.pipe()
    caller = os.fork()
    if caller == 0:
        alice = users["alice"]
        os.setgroups([])
        os.setresgid(alice.gid, alice.gid, alice.gid)
        os.setresuid(alice.uid, alice.uid, alice.uid)
        wire = Wire(daemon.socket)
        if os.fork() == 0:
            os.close(go)
            os.read(wait, 1)
            ids = wire.call("add", urls=["http://127.0.0.1:1/x"], paused=True)["ids"]
            os.write(writer, json.dumps(ids).encode())
        os._exit(0)
    os.close(writer)
    os.close(wait)
    os.waitpid(caller, 0)
    with bystander(caller, users["bob"]):
        os.close(go)
        [task_id] = json.loads(os.read(reader, 1000))
    os.close(reader)
    task = daemon.status(task_id)
    assert (task["uid"], task["owner"]) == (users["alice"].uid, users["alice"].name)
    [added] = users["alice"].call(daemon.socket, "log", id=task_id)["events"]
    assert (added["actor"], added["pid"]) == (users["alice"].name, caller)
    assert "sleep" not in added["program"]


LEFT_BEHIND = """
import asyncio, os, time
from support.chosen_pid import fork_as
from autodl_lib.supervisor.workers.starter import Starter

async def main():
    starter = Starter()
    await starter.start()
    process, pidfd = await starter.start_process(time.sleep, "worker", 0)
    pid = process.pid
    process.join()
    await starter.exit_status(process)
    child = fork_as(pid, lambda: time.sleep(300))
    await starter.end_orphans()
    starter.close()
    try:
        os.kill(child, 9)
    except ProcessLookupError:
        print("gone")

asyncio.run(main())
"""


def test_what_a_worker_left_behind_is_not_spared_for_having_an_old_worker_s_number() -> None:
    environment = {**os.environ, "PYTHONPATH": f"{REPO}:{REPO / 'tests'}"}
    done = subprocess.run(
        [sys.executable, "-c", LEFT_BEHIND], env=environment, capture_output=True, text=True, timeout=60, cwd="/"
    )
    assert done.stdout == "gone\n", done
