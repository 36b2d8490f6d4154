"""A command loads what it uses and nothing else: most of its time is Python's start."""

from __future__ import annotations

import signal
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


# Sends itself Ctrl-C when the Nth module of ours, or that ours need, is looked for.
_INTERRUPT_AT = """
import os, signal, sys
sys.path.insert(0, {root!r})
{before}
import autodl
class AtTheNth:
    left = {nth}
    def find_spec(self, *_):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, AtTheNth())
sys.argv = ["autodl", "list"]
autodl.main()
"""


def interrupted_at(nth: int, home: Path, daemon: FakeDaemon, before: str = "") -> subprocess.CompletedProcess[str]:
    return run_python("-c", _INTERRUPT_AT.format(root=str(ROOT), nth=nth, before=before), home=home, daemon=daemon)


@pytest.mark.parametrize("nth", [1, 2, 10, 30, 60])
def test_ctrl_c_while_modules_are_loaded_ends_it_without_a_word(home: Path, daemon: FakeDaemon, nth: int) -> None:
    done = interrupted_at(nth, home, daemon)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_where_ctrl_c_is_ignored_it_stays_so(home: Path, daemon: FakeDaemon) -> None:
    daemon.answers["list"] = {"tasks": [task()], "next": None}
    done = interrupted_at(10, home, daemon, before="signal.signal(signal.SIGINT, signal.SIG_IGN)")
    assert done.returncode == 0, done.stderr
    assert "file17.bin" in done.stdout


def test_ctrl_c_that_comes_later_is_the_commands_own(home: Path, daemon: FakeDaemon) -> None:
    program = (
        "import signal, sys\n"
        "import autodl\n"
        "import autodl_lib.cli.commands.one_task as one_task\n"
        "one_task._status = lambda session, request: print(signal.getsignal(signal.SIGINT).__name__)\n"
        "sys.argv = ['autodl', 'status', '1']\n"
        "autodl.main()\n"
    )
    done = run_python("-c", program, home=home, daemon=daemon)
    assert (done.stdout, done.stderr) == (f"{signal.default_int_handler.__name__}\n", "")
