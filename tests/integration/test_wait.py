"""`autodl wait`: its exit codes, which scripts rely on."""

from __future__ import annotations

import subprocess
from pathlib import Path

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


def test_a_brief_watch_tells_where_files_are_and_all_about_what_failed(daemon: Daemon, nginx: Nginx) -> None:
    served = [nginx.file(f"wait/brief{number}.bin", 10) for number in range(4)]
    first = daemon.add_one(served[0].url)
    daemon.await_state(first, "finished")
    ids = [first, *daemon.add(*(file.url for file in served[1:]), f"{nginx.base}/wait/missing")]
    saved: dict[int, str] = {}
    failed = None
    with daemon.connect() as wire:
        wire.call("watch", ids=ids, ends=True, brief=True)
        while len(saved) < len(served) or failed is None:
            notice = wire.notifications.pop(0) if wire.notifications else (wire.read() or {})["params"]
            if "dests" in notice:
                saved |= dict(zip(notice["ids"], notice["dests"], strict=True))
            else:
                failed = notice
    assert saved == {ids[number]: str(daemon.files / Path(file.url).name) for number, file in enumerate(served)}
    assert (failed["id"], failed["state"], failed["http_status"]) == (ids[-1], "failed", 404)


def test_a_quiet_get_prints_the_files_in_the_order_of_the_urls(daemon: Daemon, nginx: Nginx) -> None:
    names = ("wait-c.bin", "wait-a.bin", "wait-b.bin")
    done = daemon.autodl("get", "-q", *(nginx.file(f"wait/{name}", 10).url for name in names), cwd=daemon.files)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [str(daemon.files / name) for name in names]
