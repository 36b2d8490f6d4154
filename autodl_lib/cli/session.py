"""What a command is run with: the options that every command has, and the way to the daemon.

Runs as: the caller.  Talks to: the daemon through client; stdin, stdout and stderr.
"""

from __future__ import annotations

import errno
import io
import json
import os
import select
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from autodl_lib.client.connection import Connection
    from autodl_lib.contract.http_options import HttpOptions
    from autodl_lib.contract.requests.registry import Request

    RunHttp = Callable[[HttpOptions, Callable[[], Connection]], int]
    """Serves HTTP in this process until it ends, asking on connections that are opened so; returns its exit status."""


class RunDaemon(Protocol):
    """Runs a daemon in this process until it ends; returns its exit status."""

    def __call__(
        self,
        *,
        max_tasks_num: int | None,
        socket: str | None,
        state_dir: str | None,
        config: str | None,
        private: bool,
        idle_exit_s: float | None,
    ) -> int: ...


class Session:
    """One run of the command line; the options are filled in while click parses."""

    def __init__(
        self,
        *,
        entry: str,
        run_daemon: RunDaemon,
        run_http: RunHttp | None = None,
        loaded: Callable[[], None] | None = None,
    ) -> None:
        self.entry = entry
        self.run_daemon = run_daemon
        self.run_http = run_http
        self.loaded = loaded
        self.socket: str | None = None
        self.json = False

    def connect(self) -> Connection:
        """Connect to the daemon, starting the private one if need be."""
        from autodl_lib.client.opener import Opener

        return Opener(socket=self.socket, entry=self.entry)()

    def call(self, request: Request) -> dict[str, Any]:
        """Ask the daemon one thing."""
        with self.connect() as connection:
            return connection.call(request)


class OutputError(OSError):
    """Stdout can't be written; nobody reading it is BrokenPipeError still."""


class Output(io.TextIOWrapper):
    """Stdout that says of an error that it was here; once something is lost, nothing more is written.

    Without it "No space left on device" could be about any file, and be forgotten with a buffer.
    """

    lost: OutputError | None = None
    beneath: io.TextIOWrapper | None = None
    """What it is in the place of: at its end, that would close the buffer which both have."""

    def write(self, text: str) -> int:
        """Write, most often into the buffer.

        Raises: OutputError, BrokenPipeError.
        """
        self._check()
        try:
            return super().write(text)
        except OSError as error:
            raise self._named(error) from None

    def flush(self) -> None:
        """Write out the buffer.

        Raises: OutputError, BrokenPipeError.
        """
        self._check()
        try:
            super().flush()
        except OSError as error:
            raise self._named(error) from None

    def _check(self) -> None:
        if self.lost is not None:
            raise self.lost

    def _named(self, error: OSError) -> OSError:
        if isinstance(error, BrokenPipeError):
            return error
        self.lost = OutputError(f"can't write to standard output: {error.strerror}")
        return self.lost


def name_errors_of_stdout() -> None:
    """Make stdout one whose errors say so; leaves alone what is no plain file, as in tests."""
    plain = sys.stdout
    if type(plain) is io.TextIOWrapper:
        named = Output(
            plain.buffer,
            encoding=plain.encoding,
            errors=plain.errors,
            newline="\n",
            line_buffering=plain.line_buffering,
            write_through=plain.write_through,
        )
        named.beneath = plain
        sys.stdout = named


def stdin_bytes() -> IO[bytes]:
    """Return stdin to read from.

    Raises: OSError where the process was started without.
    """
    if sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed")
    return sys.stdin.buffer


def say(text: str = "") -> None:
    """Write a line for people, already cleaned, to stdout."""
    sys.stdout.write(text + "\n")


def say_now(text: str) -> None:
    """Write a line that somebody may be waiting for."""
    say(text)
    sys.stdout.flush()


def flush_to_readers() -> None:
    """Write out what is buffered, and notice that nobody reads it any more, also when there is nothing to write.

    Raises: BrokenPipeError.
    """
    sys.stdout.flush()
    readers = select.poll()
    readers.register(sys.stdout.fileno(), 0)
    if any(event & select.POLLERR for _, event in readers.poll(0)):
        raise BrokenPipeError


def complain(text: str) -> None:
    """Write `autodl: text` to stderr; stdout, which may be the same terminal, first."""
    # What can't be written is told of at the end; it must not hide this.
    with suppress(OutputError):
        sys.stdout.flush()
    sys.stderr.write(f"autodl: {text}\n")
    sys.stderr.flush()


def say_json(document: Any) -> None:
    """Write the one JSON document of `--json`: spread out on a terminal, one line elsewhere."""
    sys.stdout.write(json.dumps(document, indent=2 if sys.stdout.isatty() else None) + "\n")


def draws_on_terminal() -> bool:
    """Say whether stdout is a terminal that can move its cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def draws_colours() -> bool:
    """Say whether colours are welcome. Source: no-color.org."""
    return draws_on_terminal() and not os.environ.get("NO_COLOR")
