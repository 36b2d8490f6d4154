"""`autodl set-url`: another URL for a task, whose bytes are kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.daemon import Daemon, MakeDaemon
from support.misbehaving_server import Case, MisbehavingServer

BODY = bytes(range(256)) * 4000
TOKEN = "token=very-secret"


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


def say(daemon: Daemon, task_id: int) -> str:
    """Return all that is told of a task."""
    return daemon.ok("log", str(task_id), "--json") + daemon.ok("status", str(task_id), "--json")


def test_a_running_download_goes_on_from_its_bytes_at_the_new_url(
    make_daemon: MakeDaemon, server: MisbehavingServer
) -> None:
    daemon = make_daemon().start()
    old = server.serve(f"/old?{TOKEN}", Case(body=BODY, etag='"1"', hold_after=500_000))
    new = server.serve("/new", Case(body=BODY, etag='"1"'))
    task_id = daemon.add_one(old, "-o", "file")
    assert server.held.acquire(timeout=45)
    daemon.await_bytes(task_id)
    done = daemon.json("set-url", str(task_id), new)
    assert done["id"] == task_id
    assert done["next"] in ("it goes on by itself", "it was finished just before")
    task = daemon.await_state(task_id, "finished")
    assert (daemon.files / "file").read_bytes() == BODY
    assert task["url"] == new
    ranges = [request.headers.get("range") for request in server.requests if request.line.startswith("GET /new")]
    assert ranges[0] is not None, "what was there was not fetched again"
    assert TOKEN not in say(daemon, task_id)


@pytest.mark.parametrize("state", ["paused", "enqueued", "retrying", "failed"])
def test_a_task_that_does_not_run_keeps_its_state_or_is_due_at_once(
    make_daemon: MakeDaemon, server: MisbehavingServer, state: str
) -> None:
    daemon = make_daemon(config="[retry]\nfirst_delay_s = 3600\nmax_delay_s = 3600\n").start()
    status = {"retrying": "500 Oh", "failed": "404 Not Found"}.get(state, "200 OK")
    old = server.serve(f"/old?{TOKEN}", Case(status=status, body=BODY))
    new = server.serve("/new", Case(body=BODY))
    if state == "enqueued":
        daemon.ok("pause")
    task_id = daemon.add_one(old, "-o", "file", *(["--paused"] if state == "paused" else []))
    daemon.await_state(task_id, state) if state in ("retrying", "failed") else None
    done = daemon.json("set-url", str(task_id), new)
    assert TOKEN not in say(daemon, task_id)
    match state:
        case "paused":
            assert (done["state"], done["next"]) == ("paused", f"autodl resume --id {task_id} lets it go on")
            daemon.ok("resume", "--id", str(task_id))
        case "failed":
            assert (done["state"], done["next"]) == ("failed", f"autodl retry {task_id} lets it go on")
            daemon.ok("retry", str(task_id))
        case "enqueued":
            assert done["state"] == "enqueued"
            daemon.ok("resume")
    daemon.await_task(task_id, "finished", lambda task: task["state"] == "finished")
    assert (daemon.files / "file").read_bytes() == BODY


def test_a_settled_task_keeps_its_url(daemon: Daemon, server: MisbehavingServer) -> None:
    url = server.serve("/done", Case(body=b"x"))
    task_id = daemon.add_one(url)
    daemon.await_state(task_id, "finished")
    done = daemon.autodl("set-url", str(task_id), "http://127.0.0.1:1/other")
    assert done.returncode == 1
    assert done.stderr.startswith(f"autodl: task {task_id} is finished")
    assert daemon.status(task_id)["url"] == url


def test_what_is_no_url_is_refused(daemon: Daemon) -> None:
    task_id = daemon.add_one("--paused", "http://127.0.0.1:1/x")
    done = daemon.autodl("set-url", str(task_id), "file:///etc/passwd")
    assert done.returncode == 2
    assert daemon.status(task_id)["url"] == "http://127.0.0.1:1/x"


def test_the_new_host_s_limit_is_the_one_that_counts(make_daemon: MakeDaemon, server: MisbehavingServer) -> None:
    daemon = make_daemon().start()
    busy = Case(status="503 Service Unavailable", headers=("Retry-After: 3000",))
    with MisbehavingServer() as other:
        daemon.await_state(daemon.add_one(server.serve("/busy", busy)), "retrying")
        task_id = daemon.add_one(server.serve("/file", Case(body=b"x")))
        assert "asked to be left alone" in daemon.ok("explain", str(task_id))
        daemon.ok("set-url", str(task_id), other.serve("/file", Case(body=b"x")))
        daemon.await_state(task_id, "finished")
