"""What `get` draws on a terminal: a line for what is over at once, bars for what takes a while."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_daemon import ROOT, FakeDaemon, environment, task

URL = "http://example.test/file17.bin"
FINISHED = task(state="finished", bytes_done=1000, bytes_total=1000)
LINE = "17 finished  /data/file17.bin (1000 B)"
BAR = "━"


class Terminal:
    """A command whose input and output are a terminal."""

    def __init__(self, home: Path, daemon: FakeDaemon, *arguments: str, **variables: str) -> None:
        self._ours, theirs = pty.openpty()
        shown = {"TERM": "xterm", "COLUMNS": "100", "LINES": "25", "PYTHONIOENCODING": "utf-8", **variables}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "autodl.py"), *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=home,
            env=environment(home, AUTODL_SOCKET=str(daemon.path), **shown),
        )
        os.close(theirs)
        self.seen = ""

    def read_until(self, text: str) -> None:
        """Take in what the command shows until it has shown `text`."""
        while text not in self.seen:
            assert self._read(), f"the command has ended: {self.seen!r}"

    def read_all(self) -> str:
        """Return all that the command has shown when it has ended."""
        while self._read():
            pass
        return self.seen

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def _read(self) -> bool:
        data = b""
        with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            data = os.read(self._ours, 65536)
        self.seen += data.decode("utf-8", "replace")
        return bool(data)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


@pytest.fixture(autouse=True)
def _answers(daemon: FakeDaemon) -> None:
    daemon.answers["add"] = {"ids": [17]}


def test_a_download_that_is_over_at_once_is_a_line(home: Path, daemon: FakeDaemon, terminals: list[Terminal]) -> None:
    daemon.watches = [[FINISHED]]
    terminals.append(Terminal(home, daemon, "get", URL, NO_COLOR="1"))
    assert terminals[0].read_all() == LINE + "\r\n"
    assert terminals[0].process.wait() == 0


def test_the_line_has_the_colour_of_its_state(home: Path, daemon: FakeDaemon, terminals: list[Terminal]) -> None:
    daemon.watches = [[FINISHED]]
    terminals.append(Terminal(home, daemon, "get", URL))
    assert terminals[0].read_all() == f"\x1b[32m{LINE}\x1b[0m\r\n"


def test_a_failure_that_comes_at_once_is_said_once(home: Path, daemon: FakeDaemon, terminals: list[Terminal]) -> None:
    error = {"code": "http_error", "message": "the server answered 404 Not Found"}
    daemon.watches = [[task(state="failed", error=error)]]
    terminals.append(Terminal(home, daemon, "get", URL))
    assert terminals[0].read_all().count("404") == 1
    assert terminals[0].process.wait() == 1


def test_a_download_that_takes_a_while_has_a_bar(home: Path, daemon: FakeDaemon, terminals: list[Terminal]) -> None:
    daemon.watches = [[task(state="downloading", bytes_done=500, bytes_total=1000, speed_bps=100, eta_s=5)]]
    terminals.append(Terminal(home, daemon, "get", URL))
    terminals[0].read_until(BAR)
    terminals[0].read_until("50%")
    terminals[0].process.send_signal(signal.SIGINT)
    assert "goes on in the background" in terminals[0].read_all()
    assert terminals[0].process.wait() == 130


def test_where_nothing_moves_that_is_said(home: Path, daemon: FakeDaemon, terminals: list[Terminal]) -> None:
    daemon.watches = [[FINISHED]]
    terminals.append(Terminal(home, daemon, "watch"))
    terminals[0].read_until("nothing is waiting or running")
