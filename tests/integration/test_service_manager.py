"""A real daemon that a service manager starts: what it says when, and the socket that it is given."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import AUTODL, Daemon, MakeDaemon
from support.mailbox import Mailbox
from support.nginx import Nginx
from support.waiting import PATIENCE_S

_START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="autodl.socket")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def mailbox(place: Path) -> Iterator[Mailbox]:
    made = Mailbox(place / "notify")
    yield made
    made.close()


def start(daemon: Daemon, mailbox: Mailbox, listening: socket.socket) -> None:
    """Start a daemon as systemd does, on a socket that is there before it."""
    command = [sys.executable, "-c", _START, str(listening.fileno()), *AUTODL, "daemon"]
    command += ["--socket", str(daemon.socket), "--state-dir", str(daemon.state_dir), "--config", str(daemon.config)]
    with daemon.log_path.open("ab") as log:
        daemon.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[listening.fileno()],
            env=daemon.environment(NOTIFY_SOCKET=str(mailbox.path), WATCHDOG_USEC="1000000"),
            cwd="/",
        )


@pytest.fixture
def daemon(make_daemon: MakeDaemon, mailbox: Mailbox) -> Iterator[Daemon]:
    made = make_daemon()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(made.socket))
        listening.listen()
        start(made, mailbox, listening)
        yield made


def test_it_is_ready_when_the_socket_answers_and_the_pool_runs(daemon: Daemon, mailbox: Mailbox) -> None:
    assert mailbox.await_message(b"READY=1") == []
    assert daemon.family().manager is not None
    assert daemon.tasks() == []


def test_it_tells_what_runs_and_that_it_lives(daemon: Daemon, mailbox: Mailbox, nginx: Nginx) -> None:
    mailbox.await_message(b"STATUS=0 running, 0 queued")
    task_id = daemon.add_one(nginx.file("told", 400_000, rate="64k").slow_url)
    mailbox.await_message(b"STATUS=1 running, 0 queued")
    mailbox.await_message(b"WATCHDOG=1")
    daemon.ok("cancel", str(task_id))
    mailbox.await_message(b"STATUS=0 running, 0 queued")


def test_a_reload_is_told_and_ends(daemon: Daemon, mailbox: Mailbox) -> None:
    mailbox.await_message(b"READY=1")
    os.kill(daemon.pid, signal.SIGHUP)
    assert any(message.startswith(b"RELOADING=1\n") for message in mailbox.await_message(b"READY=1"))


def test_it_says_that_it_stops_and_leaves_the_socket_that_it_was_given(daemon: Daemon, mailbox: Mailbox) -> None:
    mailbox.await_message(b"READY=1")
    assert daemon.stop() == 0
    mailbox.await_message(b"STOPPING=1")
    assert daemon.socket.is_socket()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_S)
        client.connect(str(daemon.socket))  # it waits in the queue of the socket for the next daemon
