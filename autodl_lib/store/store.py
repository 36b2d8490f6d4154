"""The queue on disk, as the rest of the supervisor sees it.

Runs as: the supervisor.  Talks to: the writer's thread, the reader.
Invariants: writes go through `write` and are on disk when its future resolves; reads see commits only;
counters and listeners hear of a commit before the futures of its jobs do.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from autodl_lib.contract.errors import StoreUnusable
from autodl_lib.store.counters import Counters
from autodl_lib.store.database import database_tag, open_database, open_reader
from autodl_lib.store.numbering import Numbering, random_draw
from autodl_lib.store.reader import Reader
from autodl_lib.store.rows import Moved
from autodl_lib.store.transaction import Transaction
from autodl_lib.store.writer import Heed, Writer

T = TypeVar("T")

_RESERVE_BYTES = 64 * 1024 * 1024
_RESERVED_SHARE = 20
"""So much of the disk, or one part of it in so many where it is small, is left for what happens to tasks."""


class Store:
    """An open queue; make it with the loop running, on the loop's thread."""

    def __init__(self, path: Path, *, separate_numbers: bool = False) -> None:
        """Open the database at `path`, made or migrated as needed.

        `separate_numbers`: the numbers of a user's tasks say nothing of those of others.

        Raises: StoreUnusable.
        """
        self._path = path
        connection = open_database(path)
        self.tag = database_tag(connection)
        self.on_broken: Callable[[StoreUnusable], None] = lambda _: None
        """Called, maybe more than once, when the queue can't be read, or can never be written again."""
        self.read = Reader(open_reader(path, self._broken))
        self.counters = Counters(self.read.counts())
        self._listeners: list[Callable[[list[Moved]], None]] = []
        numbering = Numbering(connection, separate=separate_numbers, draw=random_draw)
        heed = Heed(committed=self._committed, broken=self._broken)
        self._writer = Writer(connection, path, heed, numbering)

    def write(self, run: Callable[[Transaction], T]) -> asyncio.Future[T]:
        """Run `run` in the next transaction; see Writer.submit for what the future raises."""
        return self._writer.submit(run)

    def check_room(self) -> None:
        """See that the disk has room for more than what is to be recorded of the tasks that there are.

        Raises: StoreUnusable.
        """
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return  # whoever writes next will say what it is
        free_bytes = (disk.f_bavail if os.geteuid() else disk.f_bfree) * disk.f_frsize
        if free_bytes < min(_RESERVE_BYTES, disk.f_blocks * disk.f_frsize // _RESERVED_SHARE):
            words = f"the disk of {self._path.parent} is nearly full ({free_bytes >> 20} MiB are left)"
            raise StoreUnusable(f"{words}: nothing more is queued until there is room")

    def listen(self, listener: Callable[[list[Moved]], None]) -> None:
        """Call `listener` on the loop's thread with what each commit changed."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Finish what was submitted, and close; blocks for a commit."""
        self._writer.close()
        self.read.close()

    def _broken(self, error: StoreUnusable) -> None:
        self.on_broken(error)

    def _committed(self, moved: list[Moved]) -> None:
        self.counters.record(moved)
        for listener in self._listeners:
            listener(moved)
