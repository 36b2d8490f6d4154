"""`autodl wait`: its exit codes, which scripts rely on."""

from __future__ import annotations

import subprocess

from support.daemon import AUTODL, Daemon
from support.nginx import Nginx
from support.waiting import wait_until


def test_it_is_0_when_all_are_finished(daemon: Daemon, nginx: Nginx) -> None:
    ids = daemon.add(*(nginx.file(f"wait/{number}", 100_000, rate="100k").slow_url for number in range(3)))
    done = daemon.autodl("wait", *map(str, ids))
    assert (done.returncode, done.stderr) == (0, "")
    assert {daemon.status(task_id)["state"] for task_id in ids} == {"finished"}


def test_it_is_1_when_one_failed(daemon: Daemon, nginx: Nginx) -> None:
    ids = daemon.add(nginx.file("wait/good", 10).url, f"{nginx.base}/wait/bad")
    done = daemon.autodl("wait", *map(str, ids))
    assert done.returncode == 1
    assert f"{ids[1]} failed: the server answered 404" in done.stderr


def test_it_is_1_when_one_was_cancelled(daemon: Daemon) -> None:
    task_id = daemon.add_one("http://127.0.0.1:1/x", "--paused")
    daemon.ok("cancel", str(task_id))
    assert daemon.autodl("wait", str(task_id)).returncode == 1


def test_it_is_4_for_a_task_that_is_not_there(daemon: Daemon) -> None:
    done = daemon.autodl("wait", "77")
    assert (done.returncode, done.stdout) == (4, "")
    assert "no such task: 77" in done.stderr


def test_it_is_6_when_the_time_is_over_first(daemon: Daemon) -> None:
    task_id = daemon.add_one("http://127.0.0.1:1/x", "--paused")
    done = daemon.autodl("wait", str(task_id), "--timeout", "0.2")
    assert done.returncode == 6
    assert done.stderr.startswith("autodl: ")


def test_it_is_3_without_a_daemon(daemon: Daemon) -> None:
    daemon.stop()
    done = daemon.autodl("--socket", str(daemon.socket), "status", "1")
    assert done.returncode == 3
    assert done.stderr.startswith("autodl: ")


def test_its_json_holds_the_tasks(daemon: Daemon, nginx: Nginx) -> None:
    task_id = daemon.add_one(nginx.file("wait/json", 10).url)
    [task] = daemon.json("wait", str(task_id))["tasks"]
    assert (task["id"], task["state"]) == (task_id, "finished")


def test_it_waits_through_a_restart_of_the_daemon(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("wait/restart.bin", 2_000_000, rate="500k")
    get = subprocess.Popen(
        [*AUTODL, "get", "--quiet", served.slow_url],
        cwd=daemon.files,
        env=daemon.environment(AUTODL_SOCKET=str(daemon.socket)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(daemon.tasks()) == 1, "the task is queued")
    daemon.await_bytes(1)
    daemon.kill()
    daemon.start()
    out, err = get.communicate(timeout=60)
    assert get.returncode == 0, (out, err)
    assert (daemon.files / "restart.bin").read_bytes() == served.data
