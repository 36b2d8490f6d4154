"""`autodl status`, `list`, `log`, `explain`, `stats`: what people see and what programs read."""

from __future__ import annotations

import json

import pytest
from fake_daemon import FakeDaemon, Refusal, Run, task

EVIL = "a\x1b]0;owned\x07\x9b31m\u202egnp.exe\nb\tc"


def test_status_json_is_the_task_as_the_daemon_sent_it(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["status"] = {**task(), "of_a_newer_daemon": [1]}
    assert json.loads(run("status", "17", "--json").stdout) == {**task(), "of_a_newer_daemon": [1]}


def test_status_tells_a_person_sizes_and_ages(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["status"] = {
        **task(
            state="downloading", bytes_done=1536, bytes_total=3072, speed_bps=1024, eta_s=75, started_at=1700000000.0
        ),
        "of_a_newer_daemon": [1],
    }
    done = run("status", "17")
    assert "state     downloading\n" in done.stdout
    assert "1.5 KiB of 3.0 KiB (50%)" in done.stdout
    assert "1:15 to go" in done.stdout
    assert " ago)" in done.stdout


def test_what_could_steer_the_terminal_is_replaced_everywhere(run: Run, daemon: FakeDaemon) -> None:
    evil = task(
        state="retrying",
        name=EVIL,
        url=f"http://x/{EVIL}",
        dir=f"/{EVIL}",
        owner=EVIL,
        error={"code": EVIL, "message": EVIL},
    )
    daemon.answers["status"] = evil
    daemon.answers["list"] = {"tasks": [evil], "next": None}
    daemon.answers["log"] = {"events": [{"at": 1.0, "event": EVIL, "state": EVIL, "detail": EVIL}]}
    daemon.answers["explain"] = {"id": 17, "reason": EVIL}
    daemon.watches = [[{**evil, "state": "failed"}]]
    for arguments in (["status", "17"], ["list"], ["log", "17"], ["explain", "17"], ["wait", "17"]):
        done = run(*arguments)
        text = done.stdout + done.stderr
        assert "owned" in text
        assert not any(bad in text for bad in "\x1b\x07\x9b\u202e"), arguments
        assert "gnp.exe\nb" not in text


def test_list_json_joins_all_pages(run: Run, daemon: FakeDaemon) -> None:
    def page(params: dict[str, int]) -> dict[str, object]:
        after = params["after"]
        return {"tasks": [task(after + 1), task(after + 2)], "next": after + 2 if after < 4 else None}

    daemon.answers["list"] = page
    assert [t["id"] for t in json.loads(run("list", "--json").stdout)["tasks"]] == [1, 2, 3, 4, 5, 6]
    assert [t["id"] for t in json.loads(run("list", "--json", "-n", "3").stdout)["tasks"]] == [1, 2, 3, 4]
    assert [params["limit"] for params in daemon.params("list")[3:]] == [3, 1]


def test_pages_that_go_nowhere_are_an_error_and_no_endless_loop(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["list"] = {"tasks": [task(1)], "next": 0}
    assert run("list").returncode == 3


def test_list_without_a_terminal_cuts_nothing_off_and_hides_passwords(run: Run, daemon: FakeDaemon) -> None:
    url = f"https://user:secret@example.test/{'x' * 300}"
    daemon.answers["list"] = {"tasks": [task(1, name=None, url=url)], "next": None}
    lines = run("list").stdout.splitlines()
    assert lines[0].split("\t")[0] == "ID"
    assert lines[1].split("\t")[0:2] == ["1", "enqueued"]
    assert lines[1].endswith(f"https://***@example.test/{'x' * 300}")


def test_list_passes_its_filters_on(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["list"] = {"tasks": [], "next": None}
    run("list", "-s", "failed", "--state", "paused", "-a")
    [params] = daemon.params("list")
    assert (params["states"], params["all"]) == (["failed", "paused"], True)


def test_an_empty_list_says_so_on_stderr(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["list"] = {"tasks": [], "next": None}
    done = run("list")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "autodl: no tasks\n")
    assert json.loads(run("list", "--json").stdout) == {"tasks": []}


def test_log_is_a_line_for_each_event(run: Run, daemon: FakeDaemon) -> None:
    events = [
        {"at": 1700000000.0, "event": "start", "state": "downloading", "detail": None},
        {"at": 1700000001.0, "event": "fail", "state": "failed", "detail": "404 Not Found"},
    ]
    daemon.answers["log"] = {"events": events}
    lines = run("log", "17").stdout.splitlines()
    assert len(lines) == 2
    assert "fail" in lines[1]
    assert lines[1].endswith("404 Not Found")
    assert json.loads(run("log", "17", "--json").stdout) == {"events": events}


def test_stats_shows_states_responses_and_the_hold(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["stats"] = {
        "tasks": {"enqueued": 3, "finished": 1},
        "responses": {"200": 7, "404": 2, "total": 9},
        "bytes": 1048576,
        "speed_bps": 2048,
        "max_tasks_num": 10,
        "held": True,
        "held_until": None,
    }
    text = run("stats").stdout
    for part in ("enqueued  3", "404    2", "total  9", "1.0 MiB", "2.0 KiB/s", "yes, until `autodl resume`"):
        assert part in text
    assert json.loads(run("stats", "--json").stdout)["responses"]["total"] == 9


@pytest.mark.parametrize("identity", ["0", "-1", "x", "1.5", str(2**53)])
def test_a_wrong_number_of_a_task_is_a_usage_error(run: Run, daemon: FakeDaemon, identity: str) -> None:
    done = run("status", identity)
    assert done.returncode == 2
    assert done.stderr.startswith("autodl: ")
    assert daemon.requests == []


def test_a_task_that_is_not_there_has_its_exit_status(run: Run, daemon: FakeDaemon) -> None:
    def refuse(_: dict[str, object]) -> dict[str, object]:
        raise Refusal("no_such_task", "there is no task 17")

    daemon.answers["status"] = refuse
    done = run("status", "17")
    assert (done.returncode, done.stdout, done.stderr) == (4, "", "autodl: there is no task 17\n")
