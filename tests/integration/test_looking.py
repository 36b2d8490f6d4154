"""`autodl status`, `list`, `log`, `explain`, `stats`: what the command line shows of a real daemon's queue."""

from __future__ import annotations

import json

from support.daemon import QUICK, Daemon, MakeDaemon
from support.nginx import Nginx

TASK_FIELDS = {
    "id", "url", "dest", "dir", "state", "owner", "uid", "priority", "bytes_done", "bytes_total", "speed_bps",
    "eta_s", "connections", "attempts", "http_status", "error", "created_at", "started_at", "finished_at", "retry_at",
}  # fmt: skip
STATES = {"enqueued", "downloading", "retrying", "paused", "finished", "failed", "cancelled", "cleared"}


def test_status_as_json_has_every_promised_field(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("look/json.bin", 5000)
    task_id = daemon.add_one(served.url, "--priority", "7")
    daemon.await_state(task_id, "finished")
    task = daemon.json("status", str(task_id))
    assert task.keys() >= TASK_FIELDS
    expected = {
        "id": task_id, "url": served.url, "dest": str(daemon.files / "json.bin"), "dir": str(daemon.files),
        "state": "finished", "owner": "root", "uid": 0, "priority": 7, "bytes_done": 5000, "bytes_total": 5000,
        "attempts": 1, "http_status": 200, "error": None, "retry_at": None,
    }  # fmt: skip
    assert {key: task[key] for key in expected} == expected
    assert task["created_at"] <= task["started_at"] <= task["finished_at"]


def test_status_in_words_names_state_and_file(daemon: Daemon, nginx: Nginx) -> None:
    task_id = daemon.add_one(nginx.file("look/words.bin", 5000).url)
    daemon.await_state(task_id, "finished")
    shown = daemon.ok("status", str(task_id))
    assert "finished" in shown
    assert str(daemon.files / "words.bin") in shown
    assert "{" not in shown


def test_status_of_a_running_task_shows_how_far_it_is(daemon: Daemon, nginx: Nginx) -> None:
    task_id = daemon.add_one(nginx.file("look/running.bin", 4_000_000, rate="400k").slow_url)
    daemon.await_task(task_id, "measured", lambda task: task["speed_bps"] > 0 and task["eta_s"] is not None)
    task = daemon.json("status", str(task_id))
    assert 0 < task["bytes_done"] < task["bytes_total"] == 4_000_000
    assert task["dest"] is None
    assert task["connections"] >= 1


def test_list_as_json_is_an_object_of_tasks(daemon: Daemon, nginx: Nginx) -> None:
    assert daemon.json("list") == {"tasks": []}
    ids = daemon.add(*(nginx.file(f"look/list-{number}", 10).url for number in range(5)))
    daemon.await_settled(ids)
    assert [task["id"] for task in daemon.json("list")["tasks"]] == ids


def test_list_in_words_has_a_line_for_each_task(daemon: Daemon, nginx: Nginx) -> None:
    ids = daemon.add(*(nginx.file(f"look/line-{number}", 10).url for number in range(3)))
    daemon.await_settled(ids)
    lines = daemon.ok("list").splitlines()
    for number, task_id in enumerate(ids):
        [line] = [line for line in lines if f"line-{number}" in line]
        assert str(task_id) in line
        assert "finished" in line


def test_list_by_state_shows_no_others(daemon: Daemon, nginx: Nginx) -> None:
    done, held = nginx.file("look/done", 10), nginx.file("look/held", 10)
    held_id = daemon.add_one(held.url, "--paused")
    done_id = daemon.add_one(done.url)
    daemon.await_state(done_id, "finished")
    assert [task["id"] for task in daemon.json("list", "-s", "paused")["tasks"]] == [held_id]
    assert [task["id"] for task in daemon.json("list", "-s", "finished")["tasks"]] == [done_id]


def test_list_shows_queues_of_more_than_a_page(daemon: Daemon, nginx: Nginx) -> None:
    url = nginx.file("look/page", 1).url
    daemon.add("--paused", *[url] * 1201)
    assert [task["id"] for task in daemon.json("list")["tasks"]] == list(range(1, 1202))


def test_log_tells_the_story_in_order(daemon: Daemon, nginx: Nginx) -> None:
    task_id = daemon.add_one(nginx.file("look/story", 10).url, "--paused")
    daemon.ok("resume", "--id", str(task_id))
    daemon.await_state(task_id, "finished")
    events = daemon.json("log", str(task_id))["events"]
    assert [event["event"] for event in events] == ["add", "resume", "start", "finish"]
    assert [event["state"] for event in events] == ["paused", "enqueued", "downloading", "finished"]
    shown = daemon.ok("log", str(task_id)).splitlines()
    assert ["finish" in line for line in shown].count(True) >= 1


def test_where_all_places_are_taken_no_connection_is_waited_for(make_daemon: MakeDaemon, nginx: Nginx) -> None:
    """Of those that are granted, not all are used."""
    config = QUICK.replace("connections = 1\n", "connections = 8\nconnections_per_host = 8\n")
    daemon = make_daemon("1", config=config).start()
    served = nginx.file("look/all-places", 4_000_000)
    running = daemon.add_one(served.slow_url)
    daemon.await_bytes(running)
    waiting = daemon.add_one(served.url)
    assert "waits for a free place" in daemon.ok("explain", str(waiting))


def test_explain_gives_the_reason_of_each_state(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("look/why", 4_000_000)
    running = daemon.add_one(served.slow_url)
    daemon.await_bytes(running)
    daemon.ok("max-tasks", "1")
    waiting = daemon.add_one(served.url)
    paused = daemon.add_one(served.url, "--paused")
    missing = daemon.add_one(f"{nginx.base}/look/missing", "--priority", "1")
    assert "running" in daemon.ok("explain", str(running))
    assert "waits for a free place" in daemon.ok("explain", str(waiting))
    assert "paused" in daemon.ok("explain", str(paused))
    daemon.ok("pause")
    assert "on hold" in daemon.json("explain", str(waiting))["reason"]
    daemon.ok("cancel", str(running))
    assert "cancelled" in daemon.ok("explain", str(running))
    daemon.ok("resume")
    daemon.await_settled([missing, waiting])
    assert "404" in daemon.ok("explain", str(missing))
    assert "finished" in daemon.ok("explain", str(waiting))


def test_stats_count_tasks_by_state_and_answers_by_code(daemon: Daemon, nginx: Nginx) -> None:
    urls = [nginx.file(f"look/stats-{number}", 1000).url for number in range(3)]
    ids = daemon.add(*urls, f"{nginx.base}/look/nowhere", f"{nginx.base}/look/nowhere-2", f"{nginx.base}/status/403")
    daemon.await_settled(ids)
    paused = daemon.add_one(urls[0], "--paused")
    daemon.ok("cancel", str(daemon.add_one(urls[0], "--paused")))
    stats = daemon.json("stats")
    assert stats["tasks"].keys() == STATES
    counted = {state: count for state, count in stats["tasks"].items() if count}
    assert counted == {"finished": 3, "failed": 3, "paused": 1, "cancelled": 1}
    assert stats["responses"] == {"200": 3, "404": 2, "403": 1, "total": 6}
    assert stats["bytes"] >= 3000
    assert stats["speed_bps"] == 0
    shown = daemon.ok("stats")
    assert {"finished", "404", "total"} <= set(shown.split())
    assert daemon.status(paused)["state"] == "paused"


def test_stats_count_a_resumed_answer_too(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("look/partial.bin", 2_000_000, rate="500k")
    task_id = daemon.add_one(served.slow_url)
    daemon.await_bytes(task_id)
    daemon.ok("pause", "--id", str(task_id))
    daemon.ok("resume", "--id", str(task_id))
    daemon.await_state(task_id, "finished")
    assert daemon.json("stats")["responses"].get("206") == 1


def test_every_command_that_asks_answers_one_json_document(daemon: Daemon, nginx: Nginx) -> None:
    task_id = str(daemon.add_one(nginx.file("look/one-json", 10).url, "--paused"))
    for command in (
        ["status", task_id], ["list"], ["log", task_id], ["explain", task_id], ["stats"], ["max-tasks"],
        ["pause"], ["resume"], ["priority", task_id, "3"], ["cancel", task_id], ["retry", task_id], ["clear"],
    ):  # fmt: skip
        assert isinstance(json.loads(daemon.ok(*command, "--json")), dict), command
