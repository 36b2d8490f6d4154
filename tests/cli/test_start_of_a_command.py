"""A command loads what it uses and nothing else: most of its time is Python's start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fake_daemon import ROOT, FakeDaemon, Refusal, environment, task

URL = "http://example.test:12345/a"
HEAVY = {
    "rich",
    "asyncio",
    "urllib.parse",
    "urllib.request",
    "http.client",
    "ssl",
    "sqlite3",
    "pycurl",
    "multiprocessing",
    "logging",
    "hashlib",
}
CONTRACT = "autodl_lib.contract"
ALL_REQUESTS = {f"{CONTRACT}.requests.registry", f"{CONTRACT}.replies.registry", f"{CONTRACT}.settings"}
ADDING = {f"{CONTRACT}.requests.adding", f"{CONTRACT}.transfer_options"}
FOLLOWING = {"autodl_lib.cli.following", "autodl_lib.cli.display", "autodl_lib.cli.bars"}


def run_python(*arguments: str, home: Path, daemon: FakeDaemon) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(home, PYTHONPATH=str(ROOT), AUTODL_SOCKET=str(daemon.path)),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def imported_by(*arguments: str, home: Path, daemon: FakeDaemon, status: int = 0) -> set[str]:
    """Return the modules that a command has loaded at its end."""
    done = run_python("-X", "importtime", str(ROOT / "autodl.py"), *arguments, home=home, daemon=daemon)
    assert done.returncode == status, done.stderr[-1000:]
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


@pytest.mark.parametrize("arguments", [("status", "1"), ("list",)])
def test_looking_at_tasks_loads_nothing_heavy_and_no_other_request(
    arguments: tuple[str, ...], home: Path, daemon: FakeDaemon
) -> None:
    daemon.answers.update({"status": task(), "list": {"tasks": [task()], "next": None}})
    imported = imported_by(*arguments, home=home, daemon=daemon)
    assert "autodl_lib.client.connection" in imported
    assert not imported & (HEAVY | ALL_REQUESTS | ADDING | FOLLOWING)


def test_adding_loads_nothing_heavy_and_no_other_request(home: Path, daemon: FakeDaemon) -> None:
    daemon.answers["add"] = {"ids": [1]}
    imported = imported_by("add", URL, home=home, daemon=daemon)
    assert imported >= ADDING
    assert not imported & (HEAVY | ALL_REQUESTS | FOLLOWING)


def test_what_shows_a_download_is_loaded_once_it_is_queued(home: Path, daemon: FakeDaemon) -> None:
    def refuse(_: object) -> dict[str, object]:
        raise Refusal("queue_full", "the queue is full")

    daemon.answers["add"] = refuse
    imported = imported_by("get", URL, home=home, daemon=daemon, status=1)
    assert imported >= ADDING
    assert not imported & (HEAVY | ALL_REQUESTS | FOLLOWING)


def test_while_a_command_runs_its_garbage_is_collected(home: Path, daemon: FakeDaemon) -> None:
    program = (
        "import gc, sys\n"
        "import autodl\n"
        "import autodl_lib.cli.commands.one_task as one_task\n"
        "one_task._status = lambda session, request: print(gc.isenabled())\n"
        "sys.argv = ['autodl', 'status', '1']\n"
        "autodl.main()\n"
    )
    done = run_python("-c", program, home=home, daemon=daemon)
    assert (done.stdout, done.stderr) == ("True\n", "")
