"""Follows tasks through everything, a daemon's death included.

Runs as: the caller.  Talks to: the daemon, through connections that it opens and opens again.
Invariants: after a reconnection every followed task is shown again as it is now, so a change that
happened meanwhile is seen, and a caller must not count pictures. Tasks survive their daemon, so losing
it is not losing them: for `patience_s` it is looked for, and a private one is started again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

from autodl_lib.client.connection import Connection, TaskStream
from autodl_lib.contract.errors import Busy, NoDaemon, ShuttingDown

if TYPE_CHECKING:
    from autodl_lib.contract.requests.following import Watch
    from autodl_lib.contract.task import Task

PATIENCE_S = 60.0
_FIRST_DELAY_S = 0.1
_MAX_DELAY_S = 2.0


class Follower:
    """Yields tasks as they change, and an empty list each `tick_s` in which nothing does."""

    def __init__(
        self, open_connection: Callable[[], Connection], request: Watch, *, tick_s: float, patient: bool = False
    ) -> None:
        """Prepare to follow; `patient` looks for a daemon that is away at the beginning, too."""
        self._open = open_connection
        self._request = request
        self._tick_s = tick_s
        self._patient = patient
        self.away = False
        """The daemon is being looked for."""
        self.complete = False
        """Each task has been shown at least once since the daemon was found."""
        self._saved: dict[int, str] = {}

    def __iter__(self) -> Iterator[list[Task]]:
        """Follow for as long as the caller asks.

        Raises: NoDaemon when the daemon is away at first or for too long, NoSuchTask, NotAllowed.
        """
        try:
            connection = self._open()
        except (NoDaemon, ShuttingDown, Busy):
            if not self._patient:
                raise
            connection = yield from self._reopen()
        while True:
            try:
                with connection:
                    yield from self._stream(connection.watch(self._request))
            except (NoDaemon, ShuttingDown):
                connection = yield from self._reopen()

    def take_saved(self) -> dict[int, str]:
        """Return, once, the finished tasks that a brief watch has told of, with the paths of their files."""
        saved, self._saved = self._saved, {}
        return saved

    def _stream(self, stream: TaskStream) -> Iterator[list[Task]]:
        while True:
            tasks = stream.next_tasks(self._tick_s)
            self.away, self.complete = False, stream.watching is not None
            self._saved.update(stream.saved)
            stream.saved.clear()
            yield tasks

    def _reopen(self) -> Generator[list[Task], None, Connection]:
        """Try until there is a connection, yielding moments to draw in."""
        self.away, self.complete = True, False
        yield []
        deadline = time.monotonic() + PATIENCE_S
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                return self._open()
            except (NoDaemon, ShuttingDown, Busy):
                if time.monotonic() > deadline:
                    raise
            try_again_at = time.monotonic() + delay_s
            while (left_s := try_again_at - time.monotonic()) > 0:
                time.sleep(min(left_s, self._tick_s))
                yield []
            delay_s = min(delay_s * 2, _MAX_DELAY_S)
