"""What a command is run with: the options that every command has, and the way to the daemon.

Runs as: the caller.  Talks to: the daemon through client, stdout and stderr.
"""

from __future__ import annotations

import json
import os
import select
import sys
from typing import TYPE_CHECKING, Any, Protocol

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

    def __init__(self, *, entry: str, run_daemon: RunDaemon, run_http: RunHttp | None = None) -> None:
        self.entry = entry
        self.run_daemon = run_daemon
        self.run_http = run_http
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
