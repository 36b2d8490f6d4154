"""Starts the private daemon, or finds the one that another client has just started.

Runs as: the caller.  Talks to: the daemon's socket, a start lock, the daemon as its parent until it is ready.
Invariants: the start lock makes one daemon of clients that start at once; who gets the lock tries to
connect first. The daemon says `ready` on its stdout when it listens; EOF before that is a failed start.
How it fails: NoDaemon with the last lines of the daemon's log and where that is.
"""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from autodl_lib.client.connection import Connection, ConnectionLost, NobodyListens
from autodl_lib.client.locate import PrivateFolders, check_private, make_private
from autodl_lib.contract.errors import NoDaemon, NotAllowed

START_TIMEOUT_S = 20.0
ENDING_TIMEOUT_S = 10.0
"""How long a daemon that hangs up may take to end before that counts as a failure."""

_LOCK = "daemon.lock"
"""In the state folder; its first line is the socket of the daemon that holds it."""

_LOG_LINES = 5
_LOG_BYTES = 8192


def start(folders: PrivateFolders, entry: str) -> Connection:
    """Return a connection to the private daemon, which is started unless it runs; `entry` is the path of autodl.py.

    Raises: NoDaemon, NotAllowed, ProtocolMismatch.
    """
    for folder in (folders.state_dir, folders.runtime_dir, folders.socket_dir):
        make_private(folder)
    with _locked(os.path.join(folders.runtime_dir, "start.lock")):
        try:
            return _start(folders, entry)
        except NoDaemon:
            # A daemon that was just ending may have been in the way; it is gone by now.
            return _start(folders, entry)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NotAllowed(f"can't open {path}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _start(folders: PrivateFolders, entry: str) -> Connection:
    running = _connect_unless_ending(folders.socket)
    if running is None and (elsewhere := _socket_of_another(folders.state_dir)) is not None:
        running = _connect_unless_ending(elsewhere)
    if running is not None:
        return running
    log_path = os.path.join(folders.state_dir, "daemon.log")
    try:
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NotAllowed(f"can't write {log_path}: {error.strerror}") from None
    try:
        log_start = os.fstat(log).st_size
        command = [sys.executable, entry, "daemon", "--private"]
        command += ["--socket", folders.socket, "--state-dir", folders.state_dir]
        # Detached, and read only until it is ready; it is nobody's child once this client has gone.
        daemon = subprocess.Popen(  # noqa: S603 - our own program, by the Python that runs us
            command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
    except OSError as error:
        raise NoDaemon(f"can't start the private daemon: {error}") from None
    finally:
        os.close(log)
    try:
        why_not = _wait_ready(daemon)
    finally:
        assert daemon.stdout is not None
        daemon.stdout.close()
    if why_not is not None:
        raise NoDaemon(f"the private daemon {why_not}{_log_tail(log_path, log_start)}")
    # Popen would complain about a child that is still running; this one is meant to be.
    daemon.returncode = 0
    return Connection(folders.socket)


def _socket_of_another(state_dir: str) -> str | None:
    """Return where the daemon that has the queue listens: it was started where $XDG_RUNTIME_DIR was another.

    None where that folder is not the caller's alone: whoever has made it anew since could listen there.
    """
    try:
        lock = os.open(os.path.join(state_dir, _LOCK), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        socket = os.fsdecode(os.pread(lock, 4096, 0)).partition("\n")[0]
    else:
        return None
    finally:
        os.close(lock)
    try:
        check_private(os.path.dirname(socket))
    except (NotAllowed, OSError):
        return None
    return socket


def _connect_unless_ending(path: str) -> Connection | None:
    deadline = time.monotonic() + ENDING_TIMEOUT_S
    while True:
        try:
            return Connection(path)
        except NobodyListens:
            return None
        except ConnectionLost:
            # It still listens but greets nobody: it is about to go. Its end can't be awaited from here.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _wait_ready(daemon: subprocess.Popen[bytes]) -> str | None:
    assert daemon.stdout is not None
    pipe = daemon.stdout.fileno()
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    deadline = time.monotonic() + START_TIMEOUT_S
    said = b""
    while b"\n" not in said and len(said) < 100:
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not poller.poll(left_s * 1000):
            daemon.terminate()
            return f"was not ready after {START_TIMEOUT_S:g} s"
        data = os.read(pipe, 100)
        if not data:
            return f"did not start (exit status {_exit_status(daemon)})"
        said += data
    if said != b"ready\n":
        daemon.terminate()
        return f"said {said!r} in place of ready"
    return None


def _exit_status(daemon: subprocess.Popen[bytes]) -> int | str:
    try:
        return daemon.wait(timeout=2)
    except subprocess.TimeoutExpired:
        daemon.terminate()
        return "unknown"


def _log_tail(path: str, start: int) -> str:
    try:
        with open(path, "rb") as log:
            log.seek(max(start, os.fstat(log.fileno()).st_size - _LOG_BYTES))
            lines = log.read().decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    tail = "".join(f"\n  {line}" for line in lines[-_LOG_LINES:])
    return f"; its log is {path}{': ' if tail else ''}{tail}"
