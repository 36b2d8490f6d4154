"""kill -9 of one process at a chosen moment: nothing acknowledged is lost, fetched twice over, or left behind."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil
import pytest
from support.daemon import Daemon
from support.misbehaving_server import Case, MisbehavingServer
from support.nginx import Nginx
from support.processes import Family, kill, marked
from support.waiting import wait_until


def workers(daemon: Daemon) -> tuple[psutil.Process, ...]:
    return wait_until(lambda: daemon.family().workers, "a worker lives", seen=daemon.log_end)


def manager(daemon: Daemon) -> psutil.Process:
    return wait_until(lambda: daemon.family().manager, "the manager lives", seen=daemon.log_end)


def forkserver(daemon: Daemon) -> psutil.Process:
    return wait_until(lambda: daemon.family().forkserver, "the forkserver lives", seen=daemon.log_end)


def test_a_supervisor_killed_after_add_was_answered_has_the_task_when_it_is_back(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("crash/answered.bin", 200_000)
    with daemon.connect() as wire:
        [task_id] = wire.call("add", urls=[served.url], dir=str(daemon.files))["ids"]
        daemon.kill()
    daemon.start()
    daemon.await_state(task_id, "finished")
    assert (daemon.files / "answered.bin").read_bytes() == served.data
    assert daemon.names() == ["answered.bin"]


def test_a_supervisor_killed_in_mid_download_goes_on_from_the_part(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("crash/supervisor.bin", 4_000_000, rate="800k")
    task_id = daemon.add_one(served.slow_url)
    # A checkpoint has been written: the control file is there.
    wait_until(lambda: ".supervisor.bin.autodl-ctl" in daemon.names(), "a checkpoint", seen=daemon.names)
    daemon.kill()
    # Its workers and its manager end by themselves.
    wait_until(lambda: marked(daemon.mark) == [], "its processes end", seen=lambda: marked(daemon.mark))
    daemon.start()
    daemon.await_state(task_id, "finished")
    assert (daemon.files / "supervisor.bin").read_bytes() == served.data
    assert daemon.names() == ["supervisor.bin"]
    first, second = nginx.fetches("supervisor.bin", at_least=2)
    assert (first.status, second.status) == (200, 206)


def test_a_new_supervisor_does_not_disturb_itself_with_the_old_one_s_workers(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("crash/at-once.bin", 3_000_000, rate="800k")
    task_id = daemon.add_one(served.slow_url)
    daemon.await_bytes(task_id, 300_000)
    daemon.kill()
    daemon.start()
    daemon.await_state(task_id, "finished")
    assert (daemon.files / "at-once.bin").read_bytes() == served.data
    assert daemon.names() == ["at-once.bin"]


def test_a_worker_killed_in_mid_download_is_said_and_its_task_goes_on(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("crash/worker.bin", 4_000_000, rate="800k")
    task_id = daemon.add_one(served.slow_url)
    wait_until(lambda: ".worker.bin.autodl-ctl" in daemon.names(), "a checkpoint", seen=daemon.names)
    [worker] = workers(daemon)
    worker.kill()
    task = daemon.await_state(task_id, "finished")
    assert (daemon.files / "worker.bin").read_bytes() == served.data
    assert daemon.names() == ["worker.bin"]
    assert task["attempts"] == 2
    assert [fetch.status for fetch in nginx.fetches("worker.bin", at_least=2)] == [200, 206]
    events = [event["event"] for event in daemon.json("log", str(task_id))["events"]]
    assert events == ["add", "start", "lose", "due", "start", "finish"]


def test_only_the_task_that_was_running_pays_for_its_worker(daemon: Daemon, nginx: Nginx) -> None:
    daemon.ok("max-tasks", "1")
    slow = daemon.add_one(nginx.file("crash/slow.bin", 1_500_000, rate="500k").slow_url)
    small = daemon.add(*(nginx.file(f"crash/small-{number}", 10).url for number in range(5)))
    daemon.await_bytes(slow)
    [worker] = workers(daemon)
    worker.kill()
    settled = daemon.await_settled([slow, *small])
    assert {task["state"] for task in settled.values()} == {"finished"}
    assert {settled[task_id]["attempts"] for task_id in small} == {1}


def test_a_task_that_keeps_losing_its_worker_fails_with_that_as_its_reason(daemon: Daemon) -> None:
    daemon.config.write_text("[retry]\nmax_attempts = 3\nfirst_delay_s = 0.05\n")
    daemon.stop()
    daemon.start()
    with MisbehavingServer() as server:  # of which nothing comes: an attempt that brought something would not count
        fail_by_losing_workers(daemon, daemon.add_one(server.serve("/poison.bin", Case(raw=b"", hang_after=0))))


def fail_by_losing_workers(daemon: Daemon, task_id: int) -> None:
    killed: set[int] = set()

    def kill_workers() -> bool:
        for worker in daemon.family().workers:
            if worker.pid not in killed:
                killed.add(worker.pid)
                kill(worker)
        return daemon.status(task_id)["state"] == "failed"

    wait_until(kill_workers, "the task fails", seen=daemon.log_end)
    task = daemon.status(task_id)
    assert task["error"]["code"] == "worker_lost"
    assert "killed by signal 9" in task["error"]["message"]
    events = [event["event"] for event in daemon.json("log", str(task_id))["events"]]
    assert [event for event in events if event in ("lose", "fail")] == ["lose", "lose", "fail"]


def test_a_stopped_worker_lets_go_of_a_cancelled_task_in_the_end(daemon: Daemon, nginx: Nginx) -> None:
    task_id = daemon.add_one(nginx.file("crash/frozen.bin", 3_000_000).slow_url)
    daemon.await_bytes(task_id)
    [worker] = workers(daemon)
    worker.suspend()
    daemon.ok("cancel", str(task_id))
    daemon.await_state(task_id, "cancelled")
    wait_until(lambda: daemon.names() == [], "its part goes", seen=daemon.names)


@pytest.mark.parametrize("victim", [manager, forkserver])
def test_a_killed_helper_is_replaced_and_no_download_is_lost(
    daemon: Daemon, nginx: Nginx, victim: Callable[[Daemon], psutil.Process]
) -> None:
    slow = nginx.file(f"crash/{victim.__name__}.bin", 3_000_000, rate="1000k")
    task_id = daemon.add_one(slow.slow_url)
    daemon.await_bytes(task_id, 300_000)
    killed = victim(daemon)
    killed.kill()
    later = daemon.add(*(nginx.file(f"crash/{victim.__name__}-{number}", 1000).url for number in range(10)))
    settled = daemon.await_settled([task_id, *later])
    assert {task["state"] for task in settled.values()} == {"finished"}
    assert (daemon.files / f"{victim.__name__}.bin").read_bytes() == slow.data
    assert len(daemon.names()) == 11
    assert victim(daemon).pid != killed.pid


@pytest.mark.parametrize("victim", [manager, forkserver])
def test_an_idle_daemon_whose_helper_was_killed_still_downloads(
    daemon: Daemon, nginx: Nginx, victim: Callable[[Daemon], psutil.Process]
) -> None:
    victim(daemon).kill()
    task_id = daemon.add_one(nginx.file("crash/idle.bin", 1000).url)
    daemon.await_state(task_id, "finished")


def test_forkserver_and_manager_killed_together_are_both_replaced(daemon: Daemon, nginx: Nginx) -> None:
    slow = nginx.file("crash/both.bin", 4_000_000, rate="800k")
    task_id = daemon.add_one(slow.slow_url)
    daemon.await_bytes(task_id)
    found: Family = daemon.family()
    for process in (found.forkserver, found.manager, *found.workers):
        assert process is not None
        kill(process)
    daemon.await_state(task_id, "finished")
    assert (daemon.files / "both.bin").read_bytes() == slow.data
    assert daemon.names() == ["both.bin"]


def test_everything_killed_at_once_goes_on_after_a_start(daemon: Daemon, nginx: Nginx) -> None:
    served = [nginx.file(f"crash/all-{number}.bin", 800_000, rate="200k") for number in range(10)]
    ids = daemon.add(*(one.slow_url for one in served))
    daemon.await_bytes(ids[-1])
    kill(*marked(daemon.mark))
    daemon.kill()
    daemon.start()
    settled = daemon.await_settled(ids)
    assert {task["state"] for task in settled.values()} == {"finished"}
    for one in served:
        assert (daemon.files / one.name.rpartition("/")[2]).read_bytes() == one.data
    assert len(daemon.names()) == 10


def test_a_cancel_that_was_asked_for_comes_true_over_a_crash(daemon: Daemon, nginx: Nginx) -> None:
    task_id = daemon.add_one(nginx.file("crash/cancel.bin", 3_000_000).slow_url)
    daemon.await_bytes(task_id)
    [worker] = workers(daemon)
    worker.suspend()
    with daemon.connect() as wire:
        wire.ask("cancel", ids=[task_id])
        with daemon.connect() as other:
            # The wish is on disk when a later change of another client is: they share the one writer.
            other.call("pause")
        daemon.kill()
    daemon.start()
    worker.kill()
    daemon.await_state(task_id, "cancelled")
    daemon.ok("resume")
    wait_until(lambda: daemon.names() == [], "its part goes", seen=daemon.names)


def test_it_ends_when_asked_at_any_moment_of_its_start(daemon: Daemon) -> None:
    daemon.stop()
    for step in range(16):
        daemon.launch()
        wait_until(daemon.socket.exists, "the socket is there")
        time.sleep(step * 0.02)  # there is no event for "any moment"
        assert daemon.stop() in (0, -15)
        wait_until(lambda: marked(daemon.mark) == [], "its processes end", seen=lambda: marked(daemon.mark))
    daemon.start()
