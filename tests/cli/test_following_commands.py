"""`autodl get`, `watch`, `wait`: lines without a terminal, exit statuses, a daemon that goes away."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_daemon import ROOT, FakeDaemon, Refusal, Run, environment, task

URL = "http://example.test/file17.bin"
ERROR = {"code": "http_error", "message": "the server answered 404 Not Found"}
MOVING = {"bytes_total": 1000, "speed_bps": 100, "eta_s": 5}


@pytest.fixture(autouse=True)
def _answers(daemon: FakeDaemon) -> None:
    daemon.answers["add"] = {"ids": [17]}


def test_get_saves_here_and_ends_with_where_the_file_is(run: Run, daemon: FakeDaemon, home: Path) -> None:
    daemon.watches = [
        [task(), task(state="downloading", **MOVING), task(state="finished", bytes_done=1000, bytes_total=1000)]
    ]
    done = run("get", URL)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "17 enqueued  file17.bin"
    assert done.stdout.splitlines()[1].startswith("17 downloading  file17.bin  0 B of 1000 B (0%), 100 B/s")
    assert done.stdout.splitlines()[-1] == "17 finished  /data/file17.bin (1000 B)"
    assert done.stderr == ""
    assert daemon.params("add")[0]["dir"] == str(home)


def test_lines_of_progress_are_few(run: Run, daemon: FakeDaemon) -> None:
    steps = [task(state="downloading", bytes_done=done, bytes_total=100_000) for done in range(0, 100_000, 50)]
    daemon.watches = [[*steps, task(state="finished", bytes_done=100_000)]]
    assert len(run("get", URL).stdout.splitlines()) <= 12


def test_quiet_get_prints_only_where_the_file_is(run: Run, daemon: FakeDaemon) -> None:
    daemon.watches = [[task(), task(state="finished")]]
    assert run("get", "-q", URL).stdout == "/data/file17.bin\n"


def test_get_json_is_one_document_at_the_end(run: Run, daemon: FakeDaemon) -> None:
    daemon.watches = [[task(), task(state="downloading"), task(state="finished")]]
    assert json.loads(run("get", "--json", URL).stdout) == {"tasks": [task(state="finished")]}


def test_get_of_a_failure_says_why_and_what_to_do(run: Run, daemon: FakeDaemon) -> None:
    daemon.watches = [[task(), task(state="failed", error=ERROR)]]
    done = run("get", URL)
    assert done.returncode == 1
    assert done.stderr == (
        "autodl: 17 failed: the server answered 404 Not Found (http_error); `autodl retry 17` tries again\n"
    )


def test_get_looks_for_a_daemon_that_went_away(run: Run, daemon: FakeDaemon) -> None:
    daemon.watches = [[task(), task(state="downloading")], [task(state="downloading")], [task(state="finished")]]
    done = run("get", URL)
    assert done.returncode == 0
    assert done.stdout.count("17 downloading") == 1
    assert done.stdout.count("17 finished") == 1
    assert "autodl: the daemon is away" in done.stderr


def test_interrupted_get_leaves_the_download_and_says_how_to_come_back(home: Path, daemon: FakeDaemon) -> None:
    daemon.watches = [[task()]]
    with subprocess.Popen(
        [sys.executable, str(ROOT / "autodl.py"), "get", URL],
        env=environment(home, AUTODL_SOCKET=str(daemon.path)),
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "17 enqueued  file17.bin\n"
        client.send_signal(signal.SIGINT)
        out, err = client.communicate(timeout=30)
    assert client.returncode == 130
    assert out == ""
    assert "`autodl watch 17`" in err
    assert "`autodl cancel 17`" in err
    assert "Traceback" not in err
    assert [request["method"] for request in daemon.requests] == ["add", "watch"]


@pytest.mark.parametrize(
    ("states", "status"),
    [
        (["finished", "finished"], 0),
        (["finished", "failed"], 1),
        (["cancelled", "finished"], 1),
        (["finished", "cleared"], 1),
    ],
)
def test_wait_tells_how_the_tasks_ended(run: Run, daemon: FakeDaemon, states: list[str], status: int) -> None:
    pictures = [task(17), task(18), task(17, states[0]), task(18, states[1])]
    daemon.watches = [pictures]
    assert run("wait", "17", "18", "17").returncode == status
    assert daemon.params("watch")[0]["ids"] == [17, 18]
    daemon.watches = [pictures]
    done = run("wait", "17", "18", "--json")
    assert done.returncode == status
    assert [t["state"] for t in json.loads(done.stdout)["tasks"]] == states


def test_wait_for_tasks_that_are_done_already_ends_at_once(run: Run, daemon: FakeDaemon) -> None:
    daemon.watches = [[task(state="finished")]]
    assert run("wait", "17").stdout == "17 finished  /data/file17.bin (0 B)\n"


def test_wait_times_out_with_a_status_of_its_own(run: Run, daemon: FakeDaemon) -> None:
    daemon.watches = [[task(17), task(18, "finished")]]
    done = run("wait", "17", "18", "--timeout", "0.2", "--json")
    assert done.returncode == 6
    assert [t["state"] for t in json.loads(done.stdout)["tasks"]] == ["enqueued", "finished"]
    assert done.stderr == "autodl: timed out after 0.2 s; not done yet: 17\n"


def test_wait_without_any_time_still_sees_what_is_done(run: Run, daemon: FakeDaemon) -> None:
    daemon.watches = [[task(17, "finished"), task(18, "finished")]]
    assert run("wait", "17", "18", "--timeout", "0").returncode == 0


def test_wait_for_no_such_task(run: Run, daemon: FakeDaemon) -> None:
    def refuse(_: dict[str, object]) -> dict[str, object]:
        raise Refusal("no_such_task", "there is no task 99")

    daemon.answers["watch"] = refuse
    done = run("wait", "99")
    assert (done.returncode, done.stderr) == (4, "autodl: there is no task 99\n")


def test_watch_prints_a_line_for_each_change_of_state(run: Run, daemon: FakeDaemon) -> None:
    pictures = [
        task(),
        task(state="downloading"),
        task(state="downloading", bytes_done=5),
        task(state="retrying", error=ERROR),
        task(state="downloading"),
        task(state="failed", error=ERROR),
    ]
    daemon.watches = [pictures]
    done = run("watch", "17")
    assert done.returncode == 0
    states = [line.split()[1].rstrip(":") for line in done.stdout.splitlines()]
    assert states == ["enqueued", "downloading", "retrying", "downloading", "failed"]


def test_watch_json_is_an_object_a_line(run: Run, daemon: FakeDaemon) -> None:
    pictures = [task(), task(state="downloading"), task(state="finished")]
    daemon.watches = [pictures]
    assert [json.loads(line) for line in run("watch", "17", "--json").stdout.splitlines()] == pictures
