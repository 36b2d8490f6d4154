"""A list of several requests of which not all are answered with ids: all that is queued is told, and what may be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_daemon import ROOT, FakeDaemon, Hangup, Refusal, Run, environment

URL = "http://example.test/a.bin"
FULL = "you have 6000 tasks queued, and no more are allowed"
GOES_ON = "go on in the background; `autodl watch 1 2 3 "

Then = Callable[[], None]


def full() -> None:
    raise Refusal("queue_full", FULL)


def late() -> None:
    raise Refusal("shutting_down", "the daemon is stopping")


def hang_up() -> None:
    raise Hangup


def fail_at(daemon: FakeDaemon, failures: dict[int, Then]) -> None:
    """Answer every request for URLs with their places in the list, but for some."""

    def add(params: dict[str, Any]) -> dict[str, list[int]]:
        failures.get(len(daemon.params("add")), lambda: None)()
        return {"ids": [int(url.rpartition("?")[2]) for url in params["urls"]]}

    daemon.answers["add"] = add


def urls(number: int) -> str:
    return "".join(f"{URL}?{place}\n" for place in range(1, number + 1))


def printed(done: subprocess.CompletedProcess[str]) -> list[int]:
    if done.stdout.startswith("{"):
        ids: list[int] = json.loads(done.stdout)["ids"]
        return ids
    return [int(line) for line in done.stdout.split()]


BEFORE_AND_AFTER = [*range(1, 5001), *range(10_001, 20_001)]


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_what_is_queued_after_a_refused_request_is_printed_too_and_nothing_more_is_sent(
    run: Run, daemon: FakeDaemon, options: tuple[str, ...]
) -> None:
    fail_at(daemon, {2: full})
    done = run("add", "-i", "-", *options, stdin=urls(50_000))
    assert [params["urls"][0] for params in daemon.params("add")] == [f"{URL}?{n}" for n in (1, 5001, 10_001, 15_001)]
    assert (done.returncode, printed(done)) == (1, BEFORE_AND_AFTER)
    which = "only 15000 URLs of 50000 could be queued (number 1 to 5000, 10001 to 20000 of them)"
    assert done.stderr == f"autodl: {which}\nautodl: {FULL}\n"


def test_the_error_is_that_of_the_first_refusal(run: Run, daemon: FakeDaemon) -> None:
    fail_at(daemon, {1: full, 2: late})
    done = run("add", "-i", "-", stdin=urls(15_000))
    assert (done.returncode, printed(done)) == (1, list(range(10_001, 15_001)))
    assert done.stderr.endswith(f"(number 10001 to 15000 of them)\nautodl: {FULL}\n")


def test_where_all_are_refused_only_the_error_is_told(run: Run, daemon: FakeDaemon) -> None:
    fail_at(daemon, {1: full, 2: full, 3: full})
    for command in ("add", "get"):
        daemon.requests.clear()
        done = run(command, "-i", "-", stdin=urls(15_000))
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"autodl: {FULL}\n")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_what_was_not_answered_before_the_connection_was_lost_may_be_queued(
    run: Run, daemon: FakeDaemon, options: tuple[str, ...]
) -> None:
    fail_at(daemon, {2: hang_up})
    done = run("add", "-i", "-", *options, stdin=urls(12_000))
    assert (done.returncode, printed(done)) == (3, list(range(1, 5001)))
    assert done.stderr.startswith(
        "autodl: queued 5000 URLs of 12000, and maybe 7000 more: the daemon has not answered\nautodl: "
    )


@pytest.mark.parametrize("command", ["add", "get"])
def test_a_single_url_that_was_not_answered_may_be_queued(run: Run, daemon: FakeDaemon, command: str) -> None:
    fail_at(daemon, {1: hang_up})
    done = run(command, f"{URL}?1")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("autodl: queued 0 URLs of 1, and maybe 1 more: the daemon has not answered\n")


@pytest.mark.parametrize("command", ["add", "get"])
def test_who_is_refused_at_the_door_has_nothing_queued(run: Run, daemon: FakeDaemon, command: str) -> None:
    error = {"code": -32000, "message": "you may not use this daemon", "data": {"code": "not_allowed"}}
    daemon.hello += json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode() + b"\n"
    daemon.answers["add"] = b""
    done = run(command, "-i", "-", stdin=urls(12_000))
    assert (done.returncode, done.stdout, done.stderr) == (5, "", "autodl: you may not use this daemon\n")


def test_an_error_of_the_connection_leaves_open_what_was_not_answered(run: Run, daemon: FakeDaemon) -> None:
    error = {"code": -32000, "message": "there is no memory left", "data": {"code": "busy"}}
    daemon.answers["add"] = json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode() + b"\n"
    done = run("add", "-i", "-", stdin=urls(12_000))
    message = "queued 0 URLs of 12000, and maybe 12000 more: the daemon has not answered"
    assert (done.returncode, done.stderr) == (1, f"autodl: {message}\nautodl: there is no memory left\n")


def test_a_connection_that_is_lost_after_a_refusal_hides_neither(run: Run, daemon: FakeDaemon) -> None:
    fail_at(daemon, {2: full, 3: hang_up})
    done = run("add", "-i", "-", stdin=urls(12_000))
    assert (done.returncode, printed(done)) == (1, list(range(1, 5001)))
    message = "queued 5000 URLs of 12000, and maybe 2000 more: the daemon has not answered"
    assert done.stderr == f"autodl: {message}\nautodl: {FULL}\n"


@pytest.mark.parametrize("command", ["add", "get"])
def test_what_was_not_answered_in_time_may_be_queued(home: Path, daemon: FakeDaemon, command: str) -> None:
    daemon.answers["add"] = None
    program = (
        "import autodl_lib.client.connection as connection\n"
        "connection.REPLY_TIMEOUT_S = 0.2\n"
        "from autodl_lib.cli.main import run\n"
        f"raise SystemExit(run(['{command}', '{URL}', '{URL}'], entry='', run_daemon=None))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(home, PYTHONPATH=str(ROOT), AUTODL_SOCKET=str(daemon.path)),
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (6, "")
    said, error = done.stderr.splitlines()
    assert said == "autodl: queued 0 URLs of 2, and maybe 2 more: the daemon has not answered"
    assert error.endswith("has not answered for 0.2 s")


def test_a_request_that_is_too_long_is_a_refusal_and_what_goes_before_it_is_told(run: Run, daemon: FakeDaemon) -> None:
    fail_at(daemon, {})
    mirrors = "".join(f"<url>http://example.test/{'é' * 60_000}?{number}</url>" for number in range(30))
    metalink = f'<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="a">{mirrors}</file></metalink>'
    (daemon.path.parent / "long.meta4").write_text(metalink)
    done = run("add", f"{URL}?1", "-M", "long.meta4")
    assert (done.returncode, printed(done)) == (2, [1])
    assert done.stderr.startswith("autodl: only 1 URL of 2 could be queued\nautodl: ")


@pytest.mark.parametrize("options", [(), ("--json",), ("-q",)])
def test_get_of_a_list_that_is_refused_in_part_tells_what_goes_on(
    run: Run, daemon: FakeDaemon, options: tuple[str, ...]
) -> None:
    fail_at(daemon, {2: full})
    done = run("get", "-i", "-", *options, stdin=urls(12_000))
    assert (done.returncode, done.stdout) == (1, "")
    said, error = done.stderr.splitlines()
    which = "only 7000 URLs of 12000 could be queued (number 1 to 5000, 10001 to 12000 of them)"
    assert said.startswith(f"autodl: {which}; the downloads 1 to 5000, 10001 to 12000 {GOES_ON}")
    assert error == f"autodl: {FULL}"
    assert daemon.params("watch") == []


def test_get_that_loses_its_connection_tells_what_goes_on_and_what_may(run: Run, daemon: FakeDaemon) -> None:
    fail_at(daemon, {2: hang_up})
    done = run("get", "-i", "-", stdin=urls(12_000))
    assert (done.returncode, done.stdout) == (3, "")
    said, _ = done.stderr.splitlines()
    message = "queued 5000 URLs of 12000, and maybe 7000 more: the daemon has not answered"
    assert said.startswith(f"autodl: {message}; the downloads 1 to 5000 {GOES_ON}")
