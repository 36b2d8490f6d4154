"""`autodl pause` and `resume`: of the whole queue, for some seconds, and of one task in mid-download."""

from __future__ import annotations

import hashlib
import time

import pytest
from support.daemon import Daemon, MakeDaemon
from support.misbehaving_server import Case, MisbehavingServer
from support.nginx import Nginx
from support.waiting import wait_until


def test_a_held_queue_starts_nothing_until_resume(daemon: Daemon, nginx: Nginx) -> None:
    daemon.ok("pause")
    ids = daemon.add(*(nginx.file(f"pause/held-{number}", 10).url for number in range(3)))
    stats = daemon.json("stats")
    assert (stats["held"], stats["held_until"]) == (True, None)
    # A task that would have started had time to: a client has connected, asked and been answered.
    assert {daemon.json("status", str(task_id))["state"] for task_id in ids} == {"enqueued"}
    assert nginx.fetches("held-0", at_least=0) == []
    daemon.ok("resume")
    daemon.await_settled(ids)
    assert daemon.names() == ["held-0", "held-1", "held-2"]


def test_a_hold_lets_running_downloads_go_on(daemon: Daemon, nginx: Nginx) -> None:
    task_id = daemon.add_one(nginx.file("pause/running", 1_000_000, rate="500k").slow_url)
    daemon.await_bytes(task_id)
    daemon.ok("pause")
    daemon.await_state(task_id, "finished")


def test_a_hold_of_one_second_runs_out_by_itself(daemon: Daemon, nginx: Nginx) -> None:
    hold = daemon.json("pause", "1")
    assert hold["held"] is True
    task_id = daemon.add_one(nginx.file("pause/second", 10).url)
    task = daemon.await_state(task_id, "finished")
    assert task["started_at"] >= hold["until"]
    assert daemon.json("stats")["held"] is False


def test_a_later_hold_replaces_an_earlier_one(daemon: Daemon, nginx: Nginx) -> None:
    daemon.ok("pause", "3600")
    hold = daemon.json("pause", "1")
    assert hold["until"] < time.time() + 100
    daemon.await_state(daemon.add_one(nginx.file("pause/shorter", 10).url), "finished")


def test_a_hold_survives_a_restart(daemon: Daemon, nginx: Nginx) -> None:
    daemon.ok("pause")
    task_id = daemon.add_one(nginx.file("pause/restart", 10).url)
    daemon.kill()
    daemon.start()
    assert daemon.json("stats")["held"] is True
    assert daemon.status(task_id)["state"] == "enqueued"
    daemon.ok("resume")
    daemon.await_state(task_id, "finished")


def test_a_task_paused_in_mid_download_keeps_its_part_and_goes_on_from_there(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("pause/middle.bin", 3_000_000, rate="600k")
    task_id = daemon.add_one(served.slow_url)
    daemon.await_bytes(task_id, 500_000)
    daemon.ok("pause", "--id", str(task_id))
    paused = daemon.status(task_id)
    assert paused["state"] == "paused"
    assert 500_000 <= paused["bytes_done"] < 3_000_000
    assert daemon.names() == [".middle.bin.autodl-ctl", ".middle.bin.autodl-part"]

    daemon.ok("resume", "--id", str(task_id))
    daemon.await_state(task_id, "finished")
    assert hashlib.sha256((daemon.files / "middle.bin").read_bytes()).hexdigest() == served.sha256
    assert daemon.names() == ["middle.bin"]
    first, second = nginx.fetches("middle.bin", at_least=2)
    assert (first.status, first.asked_range) == (200, None)
    assert (second.status, second.asked_range) == (206, f"bytes={paused['bytes_done']}-")
    assert second.body_bytes == 3_000_000 - paused["bytes_done"]


def test_a_paused_task_stays_paused_over_a_restart(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("pause/stays.bin", 3_000_000, rate="600k")
    task_id = daemon.add_one(served.slow_url)
    daemon.await_bytes(task_id, 100_000)
    daemon.ok("pause", "--id", str(task_id))
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.status(task_id)["state"] == "paused"
    daemon.ok("resume", "--id", str(task_id))
    daemon.await_state(task_id, "finished")
    assert (daemon.files / "stays.bin").read_bytes() == served.data
    assert [fetch.status for fetch in nginx.fetches("stays.bin", at_least=2)] == [200, 206]


def test_resuming_what_is_not_paused_is_refused_with_a_hint(daemon: Daemon) -> None:
    task_id = daemon.add_one("http://127.0.0.1:1/x", "--paused")
    daemon.ok("cancel", str(task_id))
    done = daemon.autodl("resume", "--id", str(task_id))
    assert done.returncode == 1
    assert done.stderr.startswith("autodl: ")
    assert f"autodl retry {task_id}" in done.stderr


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_some_tasks_and_all_queues_are_not_named_at_once(daemon: Daemon, command: str) -> None:
    task_id = daemon.add_one("http://127.0.0.1:1/x", "--paused")
    done = daemon.autodl(command, "--id", str(task_id), "--all")
    assert (done.returncode, "not both at once" in done.stderr) == (2, True)


def test_who_can_lift_a_hold_is_said(daemon: Daemon) -> None:
    daemon.ok("pause")
    task_id = daemon.add_one("http://127.0.0.1:1/x")
    assert daemon.json("explain", str(task_id))["reason"] == "The queue is on hold until autodl resume."
    daemon.ok("pause", "--all")
    reason = daemon.json("explain", str(task_id))["reason"]
    assert reason == "The queue is on hold until an administrator's autodl resume --all."


def test_of_several_tasks_all_or_none_are_paused(daemon: Daemon) -> None:
    ids = daemon.add("--paused", "http://127.0.0.1:1/a", "http://127.0.0.1:1/b")
    daemon.ok("resume", "--id", str(ids[0]))
    done = daemon.autodl("pause", "--id", str(ids[0]), "--id", "999")
    assert done.returncode == 4
    assert daemon.status(ids[0])["state"] != "paused"


@pytest.mark.parametrize("arguments", [{}, {"all": True}], ids=["of a user", "of everybody"])
def test_when_a_hold_is_answered_nothing_begins_of_what_workers_were_handed_ahead(
    make_daemon: MakeDaemon, arguments: dict[str, bool]
) -> None:
    workers_num, tasks_num = 4, 600
    daemon = make_daemon(str(workers_num)).start()
    with MisbehavingServer() as server:
        small = Case(body=b"x" * 100, rate_bps=10_000)
        ids = daemon.add(*(server.serve(f"/f{number}", small) for number in range(tasks_num)))
        wait_until(lambda: len(server.requests) >= 200, "workers are known to be quick")
        with daemon.connect() as wire:
            wire.call("pause", **arguments)
            asked_for = len(server.requests)
        wait_until(
            lambda: daemon.json("stats")["tasks"]["finished"] == len(server.requests), "what is under way goes on"
        )
        assert len(server.requests) <= asked_for + workers_num, "but for requests that were just on their way"
        waiting = [task for task in daemon.tasks() if task["state"] != "finished"]
        assert len(waiting) == tasks_num - len(server.requests)
        seen = {(task["state"], task["attempts"], task["started_at"], task["http_status"]) for task in waiting}
        assert seen == {("enqueued", 0, None, None)}, "they are as if nobody had had them"
        with daemon.connect() as wire:
            events = wire.call("log", id=waiting[0]["id"])["events"]
        assert [event["event"] for event in events] == ["add"]
        daemon.ok("resume", *(["--all"] if arguments else []))
        assert {task["state"] for task in daemon.await_settled(ids).values()} == {"finished"}
        assert len(server.requests) == tasks_num, "nothing was asked for twice"
