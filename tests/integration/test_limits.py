"""`autodl limit`: limits that are shown, changed while downloads run, obeyed, and remembered."""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.accounts import accounts
from support.daemon import QUICK, Daemon, MakeDaemon
from support.misbehaving_server import Case, MisbehavingServer
from support.nginx import Nginx
from support.rpc import Refused
from support.waiting import wait_until

LARGE = bytes(range(256)) * 16000


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


def test_limits_are_shown_and_survive_a_restart(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon().start()
    name = pwd.getpwuid(0).pw_name
    nothing = {"daemon_bps": 0, "user": name, "user_bps": 0, "own_bps": 0, "tasks": []}
    assert daemon.json("limit") == nothing
    assert daemon.ok("limit").splitlines() == ["user root  no limit", "daemon     no limit"]
    daemon.ok("limit", "500K")
    daemon.ok("limit", "--daemon", "3M")
    daemon.stop()
    daemon.start()
    assert daemon.json("limit") == {**nothing, "daemon_bps": 3 * 1024**2, "user_bps": 512_000, "own_bps": 512_000}
    daemon.ok("limit", "0")
    assert daemon.json("limit", "--daemon", "0") == nothing


def test_a_user_s_limit_is_no_more_than_what_the_configuration_or_an_administrator_gives(
    make_daemon: MakeDaemon,
) -> None:
    daemon = make_daemon(config=QUICK + "[limits]\nrate_bps = 1000\n").start()
    assert daemon.json("limit", "5000")["user_bps"] == 1000
    assert daemon.json("limit", "--user", "root", "400")["user_bps"] == 400
    assert daemon.json("limit", "0")["user_bps"] == 400
    assert daemon.json("limit", "--user", "root", "0")["user_bps"] == 1000


def test_a_task_s_limit_is_shown_and_changed(daemon: Daemon) -> None:
    ids = [daemon.add_one("--paused", "--limit-rate", "7K", "http://127.0.0.1:1/x") for _ in range(2)]
    arguments = [word for task_id in ids for word in ("--id", str(task_id))]
    assert [task["limit_rate_bps"] for task in daemon.json("limit", *arguments)["tasks"]] == [7168, 7168]
    assert [task["limit_rate_bps"] for task in daemon.json("limit", *arguments, "1K")["tasks"]] == [1024, 1024]
    assert "task 1     1.0 KiB/s" in daemon.ok("limit", "--id", str(ids[0]))


def test_one_limit_at_a_time_is_changed(daemon: Daemon) -> None:
    done = daemon.autodl("limit", "--daemon", "--user", "root", "1K")
    assert (done.returncode, done.stdout) == (2, "")
    assert daemon.autodl("limit", "--id", "77", "1K").returncode == 4
    assert daemon.autodl("limit", "--user", "nobody-of-that-name").returncode == 2


def test_a_finished_task_has_nothing_to_limit(daemon: Daemon, nginx: Nginx) -> None:
    task_id = daemon.add_one(nginx.file("limits/done", 10).url)
    daemon.await_state(task_id, "finished")
    done = daemon.autodl("limit", "--id", str(task_id), "1K")
    assert done.returncode == 1
    assert done.stderr.startswith(f"autodl: task {task_id} is finished")


@pytest.mark.parametrize("whose", [("--daemon",), (), ("--user", "root"), ("--id", "1")])
def test_a_limit_that_is_lifted_lets_a_running_download_go_on_at_full_speed(
    make_daemon: MakeDaemon, server: MisbehavingServer, whose: tuple[str, ...]
) -> None:
    daemon = make_daemon().start()
    if "--id" not in whose:
        daemon.ok("limit", *whose, "20K")
    task_id = daemon.add_one(
        server.serve("/large", Case(body=LARGE)), *(("--limit-rate", "20K") if "--id" in whose else ())
    )
    daemon.await_bytes(task_id)
    assert daemon.status(task_id)["state"] == "downloading", "4 MB at 20 KiB/s would take minutes"
    daemon.ok("limit", *whose, "0")
    daemon.await_state(task_id, "finished")
    assert (daemon.files / "large").read_bytes() == LARGE


def test_a_limit_slows_a_download_that_is_under_way(make_daemon: MakeDaemon, server: MisbehavingServer) -> None:
    daemon = make_daemon().start()
    task_id = daemon.add_one(server.serve("/held", Case(body=LARGE, hold_after=100_000, ranges=False)))
    assert server.held.acquire(timeout=45)
    daemon.await_bytes(task_id)
    daemon.ok("limit", "--daemon", "30K")
    server.release()
    # What is on its way in sockets may still come; after that it is slow.
    wait_until(
        lambda: 0 < daemon.status(task_id)["speed_bps"] < 100_000, "it is slow", seen=lambda: daemon.status(task_id)
    )
    assert daemon.status(task_id)["state"] == "downloading"
    daemon.ok("limit", "--daemon", "0")
    daemon.await_state(task_id, "finished")


@pytest.mark.parametrize("size_bytes", [300, 10_000, 20_000])
def test_small_files_are_no_faster_than_a_limit(daemon: Daemon, nginx: Nginx, size_bytes: int) -> None:
    """Each has its time, though its bytes come at once."""
    rate_bps, count = 20 * size_bytes, 30
    urls = [nginx.file(f"limits/{size_bytes}-{number}", size_bytes).url for number in range(count)]
    daemon.ok("limit", "--daemon", str(rate_bps))
    tasks = [daemon.await_state(task_id, "finished") for task_id in daemon.json("add", *urls, str(daemon.files))["ids"]]
    took_s = max(task["finished_at"] for task in tasks) - min(task["started_at"] for task in tasks)
    assert took_s > 0.9 * count * size_bytes / rate_bps


def test_a_small_file_that_waits_under_its_limit_ends_when_that_is_lifted(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("limits/waits", 10_000)
    task_id = daemon.add_one("--limit-rate", "1", served.url)
    daemon.await_bytes(task_id, 10_000)
    assert daemon.status(task_id)["state"] == "downloading", "it would take hours"
    daemon.ok("limit", "--id", str(task_id), "0")
    dest = Path(daemon.await_state(task_id, "finished")["dest"])
    assert dest.read_bytes() == served.data


def test_a_user_changes_their_own_limits_alone_and_never_one_that_an_administrator_has_set(daemon: Daemon) -> None:
    roots = daemon.add_one("--paused", "http://127.0.0.1:1/x")
    with accounts("limited") as made:
        user = made["limited"]
        for params, code in (
            ({"daemon": True, "rate_bps": 0}, "not_allowed"),
            ({"user": user.name, "rate_bps": 0}, "not_allowed"),
            ({"user": "root"}, "not_allowed"),
            ({"ids": [roots], "rate_bps": 1}, "no_such_task"),
        ):
            with pytest.raises(Refused) as refusal:
                user.call(daemon.socket, "limit", **params)
            assert refusal.value.code == code
        with pytest.raises(Refused) as refusal:
            user.call(daemon.socket, "set_url", id=roots, url="http://127.0.0.1:1/y")
        assert refusal.value.code == "no_such_task"
        daemon.ok("limit", "--user", user.name, "1000")
        assert user.call(daemon.socket, "limit", rate_bps=0)["user_bps"] == 1000
        assert user.call(daemon.socket, "limit", rate_bps=300)["user_bps"] == 300
    assert daemon.json("limit")["user_bps"] == 0
