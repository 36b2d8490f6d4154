"""Attempts that are over before anybody sees them, and those that wait for long: both are told as what they are."""

from __future__ import annotations

import random
import socket
import subprocess
from pathlib import Path

import pytest
from support.daemon import AUTODL, Daemon, MakeDaemon
from support.misbehaving_server import Case, MisbehavingServer
from support.nginx import Nginx
from support.waiting import wait_until

BODY = random.Random(7).randbytes(500_000)


def test_an_attempt_that_breaks_off_at_once_is_gone_on_with(daemon: Daemon) -> None:
    with MisbehavingServer() as server:
        url = server.serve("/burst.bin", Case(body=BODY, etag='"1"', cut_after=100_000))
        task_id = daemon.add_one(url, "-x", "1")
        task = daemon.await_state(task_id, "finished", "failed")
        asked = [request.headers.get("range") for request in server.requests]
    assert task["state"] == "finished", task
    assert (daemon.files / "burst.bin").read_bytes() == BODY
    assert asked == [None, *(f"bytes={done}-" for done in (100_000, 200_000, 300_000, 400_000))]


def test_who_waits_for_a_server_that_says_nothing_is_seen_to_be_at_it(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        task_id = daemon.add_one(f"http://127.0.0.1:{silent.getsockname()[1]}/quiet.bin")
        task = daemon.await_state(task_id, "downloading")
        assert task["started_at"] is not None
        assert (task["attempts"], task["bytes_done"], task["name"]) == (1, 0, None)
        daemon.ok("cancel", str(task_id))
        daemon.await_state(task_id, "cancelled")
    assert daemon.names() == []


def test_a_file_is_said_to_be_where_its_renamed_folder_is(daemon: Daemon, nginx: Nginx, place: Path) -> None:
    served = nginx.file("short/moved.bin", 1_000_000)
    before, after = place / "before", place / "after"
    task_id = daemon.add_one(served.slow_url, "--dir", str(before))
    daemon.await_bytes(task_id)
    before.rename(after)
    task = daemon.await_state(task_id, "finished")
    assert task["dest"] == str(after / "moved.bin")
    assert Path(task["dest"]).read_bytes() == served.data


def test_a_folder_of_no_files_is_no_full_disk(daemon: Daemon, nginx: Nginx) -> None:
    task_id = daemon.add_one(nginx.file("short/proc.bin", 1000).url, "--dir", "/proc")
    task = daemon.await_state(task_id, "failed")
    assert task["error"]["code"] in ("permission", "folder", "disk"), task


def test_a_pause_of_no_time_holds_nothing_and_says_so(daemon: Daemon) -> None:
    assert "not held" in daemon.ok("pause", "0")
    assert daemon.json("stats")["held"] is False


@pytest.mark.parametrize("command", ["--help", "list", "stats", "max-tasks"])
def test_a_command_whose_output_is_closed_has_no_traceback(daemon: Daemon, command: str) -> None:
    line = ["sh", "-c", 'exec "$@" >&-', "sh", *AUTODL, command, "--socket", str(daemon.socket)]
    done = subprocess.run(line, env=daemon.environment(), capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr


def test_a_reply_that_never_comes_is_waited_for_as_long_as_is_set(daemon: Daemon) -> None:
    daemon.config.write_text(daemon.config.read_text().replace("[transfer]", "[transfer]\nstall_timeout_s = 1"))
    daemon.stop()
    daemon.start()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        task_id = daemon.add_one(f"http://127.0.0.1:{silent.getsockname()[1]}/never.bin")
        task = daemon.await_task(task_id, "given up", lambda task: task["error"])
        assert task["error"]["code"] in ("stalled", "timeout"), task
        daemon.ok("cancel", str(task_id))
    wait_until(lambda: daemon.names() == [], "nothing is left", seen=daemon.names)


def test_a_download_that_can_t_be_gone_on_with_and_always_breaks_fails_in_the_end(make_daemon: MakeDaemon) -> None:
    """Of such attempts nothing is kept, so however far each came is no progress."""
    daemon = make_daemon(config="[retry]\nmax_attempts = 3\nfirst_delay_s = 0.05\nmax_delay_s = 0.1\n").start()
    with MisbehavingServer() as server:
        case = Case(body=BODY, chunked=True, cut_after=100_000, rate_bps=500_000)
        task_id = daemon.add_one(server.serve("/endless.bin", case))
        task = daemon.await_state(task_id, "failed")
    assert (task["attempts"], task["bytes_done"]) == (3, 0)
    assert daemon.names() == []


def test_of_a_cancelled_task_no_bytes_are_there(daemon: Daemon) -> None:
    with MisbehavingServer() as server:
        task_id = daemon.add_one(server.serve("/some.bin", Case(body=BODY, etag='"1"', hold_after=300_000)))
        daemon.await_bytes(task_id)
        daemon.ok("pause", "--id", str(task_id))
        assert daemon.await_state(task_id, "paused")["bytes_done"] > 0
        daemon.ok("cancel", str(task_id))
        wait_until(lambda: daemon.json("status", str(task_id))["bytes_done"] == 0, "no bytes are said to be there")
    assert daemon.names() == []
