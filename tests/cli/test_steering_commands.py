"""`autodl pause`, `resume`, `cancel`, `retry`, `clear`, `max-tasks`, `priority`: arguments, answers, exit statuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_daemon import FakeDaemon, Refusal, Run, task

HOLD = {"held": True, "until": None, "paused_tasks": 0}


def test_pause_without_seconds_holds_until_resume(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["pause"] = HOLD
    assert "until `autodl resume`" in run("pause").stdout
    assert daemon.params("pause")[0]["seconds"] is None


def test_pause_takes_seconds_as_the_older_client_did(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["pause"] = {**HOLD, "until": 1700000000.0}
    assert "no new downloads until 20" in run("pause", "30").stdout
    assert daemon.params("pause")[0]["seconds"] == 30


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "soon"])
def test_pause_refuses_what_is_no_number_of_seconds(run: Run, daemon: FakeDaemon, seconds: str) -> None:
    assert run("pause", seconds).returncode == 2
    assert daemon.requests == []


def test_pause_and_resume_take_tasks(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["pause"] = daemon.answers["resume"] = {"ids": [3, 4]}
    assert run("pause", "--id", "3", "--id", "4").stdout.splitlines()[1].startswith("4 paused")
    assert run("resume", "--id", "3", "--id", "4").stdout == "3 goes on\n4 goes on\n"
    assert daemon.params("pause")[0]["ids"] == daemon.params("resume")[0]["ids"] == [3, 4]


def test_resume_tells_of_tasks_that_stay_paused(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["resume"] = {"held": False, "until": None, "paused_tasks": 2}
    assert "2 tasks paused" in run("resume").stdout


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_cancel_and_retry_take_several_tasks(run: Run, daemon: FakeDaemon, verb: str) -> None:
    daemon.answers[verb] = {"ids": [3, 4]}
    assert [line.split()[0] for line in run(verb, "3", "4").stdout.splitlines()] == ["3", "4"]
    assert json.loads(run(verb, "3", "4", "--json").stdout) == {"ids": [3, 4]}
    assert daemon.params(verb)[0] == {"ids": [3, 4]}
    assert run(verb).returncode == 2


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_more_tasks_than_a_request_names_go_in_several(run: Run, daemon: FakeDaemon, verb: str) -> None:
    daemon.answers[verb] = lambda params: {"ids": params["ids"]}
    ids = list(range(1, 10_002))
    assert json.loads(run(verb, "--json", *map(str, ids)).stdout) == {"ids": ids}
    assert [len(params["ids"]) for params in daemon.params(verb)] == [10_000, 1]


def test_clear_says_how_many_were_dropped(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["clear"] = {"cleared": 1}
    assert run("clear").stdout == "dropped 1 task\n"
    assert json.loads(run("clear", "--json", "--all").stdout) == {"cleared": 1}
    assert [params["all"] for params in daemon.params("clear")] == [False, True]


def test_max_tasks_shows_and_sets(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["max_tasks"] = {"max_tasks_num": 5}
    assert run("max-tasks").stdout == "5\n"
    assert run("max-tasks", "5").stdout == "5\n"
    assert daemon.params("max_tasks") == [{"max_tasks_num": None}, {"max_tasks_num": 5}]
    refusals = [run("max-tasks", number) for number in ("0", "many", "1_0", "\u0663")]
    assert [refused.returncode for refused in refusals] == [2, 2, 2, 2]
    assert all("is not a valid integer\n" in refused.stderr for refused in refusals[1:])


def test_a_priority_may_be_negative(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["priority"] = task(priority=-5)
    assert run("priority", "17", "-5").stdout == "17 has priority -5\n"
    assert daemon.params("priority") == [{"id": 17, "priority": -5}]
    assert run("priority", "17", "--lowest").returncode == 2


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("invalid_params", 2),
        ("bad_url", 2),
        ("shutting_down", 3),
        ("no_such_task", 4),
        ("not_allowed", 5),
        ("wrong_state", 1),
        ("queue_full", 1),
        ("busy", 1),
        ("internal", 1),
        ("of_a_newer_daemon", 1),
    ],
)
def test_each_error_has_its_exit_status_and_message(run: Run, daemon: FakeDaemon, code: str, status: int) -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise Refusal(code, "because of this\x1b[2J")

    daemon.answers["cancel"] = refuse
    done = run("cancel", "1", "--json")
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr == "autodl: because of this\N{REPLACEMENT CHARACTER}[2J\n"
