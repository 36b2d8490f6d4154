"""The one thread that writes to the queue: jobs that arrive together share a commit.

Runs as: the supervisor, on a thread of its own.  Talks to: sqlite3, and the event loop through futures.
Invariants: jobs run in the order they were submitted; a job's future is resolved only after the commit
that holds it has returned; a job that raises has changed nothing.
How it fails: when a commit fails, every job of the batch gets StoreUnusable, and nothing of it is kept. A database
that is damaged, or whose files are not where they were, will not be written any more: who listens hears of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from autodl_lib.contract.errors import AutodlError, InternalError, StoreUnusable
from autodl_lib.store.database import is_hopeless, refusal_of
from autodl_lib.store.numbering import Numbering
from autodl_lib.store.rows import Moved
from autodl_lib.store.transaction import Insertion, Transaction

_MAX_BATCH = 2000
_REST_S = 1.0
"""After so long without work, the write-ahead log is emptied: secrets that were wiped from rows stand in it."""

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job:
    run: Callable[[Transaction], Any]
    future: asyncio.Future[Any]


_Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heed:
    """Who hears, on the loop's thread, what commits have changed, and that there will be no more of them."""

    committed: Callable[[list[Moved]], None]
    broken: Callable[[StoreUnusable], None]


class Writer:
    """Owns the writing connection; `submit` from the loop, `close` at the end."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        heed: Heed,
        numbering: Numbering,
    ) -> None:
        """Begin; on the loop's thread."""
        self._connection = connection
        self._path = path
        self._place = _place_of(path)
        self._loop = asyncio.get_running_loop()
        self._heed = heed
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._numbering = numbering
        self._has_log = True
        self._fails = False
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, run: Callable[[Transaction], T]) -> asyncio.Future[T]:
        """Run `run` in the next transaction; the future has its result once that is on disk.

        The future raises: what `run` raises (an AutodlError), or StoreUnusable.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(run, future))
        return future

    def close(self) -> None:
        """Finish the jobs that were submitted, and close the connection."""
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    def _work(self) -> None:
        closing = False
        while not closing:
            job = self._next()
            batch = []
            while True:
                if job is None:
                    closing = True
                else:
                    batch.append(job)
                if closing or len(batch) >= _MAX_BATCH:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            if batch:
                self._commit(batch)

    def _next(self) -> _Job | None:
        if self._has_log:
            with contextlib.suppress(queue.Empty):
                return self._jobs.get(timeout=_REST_S)
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._has_log = False
        return self._jobs.get()

    def _commit(self, batch: list[_Job]) -> None:
        self._has_log = True
        connection = self._connection
        transaction = Transaction(connection, self._numbering)
        changes = connection.total_changes
        outcomes: list[_Outcome] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for are_insertions, group in itertools.groupby(batch, lambda job: isinstance(job.run, Insertion)):
                run = self._run_together if are_insertions else self._run_each
                outcomes += run(list(group), transaction)
            if _place_of(self._path) != self._place:
                raise FileNotFoundError(self._path)
            connection.execute("COMMIT")
            if connection.total_changes != changes:
                self._note(None)
        except (sqlite3.Error, OSError, MemoryError) as error:
            with contextlib.suppress(sqlite3.Error, MemoryError):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            refusal = self._refusal(error)
            outcomes = [(job.future, None, refusal) for job in batch]
            transaction.moved = []
        self._loop.call_soon_threadsafe(self._deliver, outcomes, transaction.moved)

    def _note(self, refusal: StoreUnusable | None) -> None:
        """Log when commits begin to fail, and when they succeed again: not each one of them."""
        if (refusal is not None) is self._fails:
            return
        self._fails = refusal is not None
        if refusal is not None:
            words = "%s; nothing is acknowledged until it can"
            logger.error(words, refusal, extra={"event": "store_unusable"})
        else:
            logger.warning("the queue %s can be written again", self._path, extra={"event": "store_usable"})

    def _refusal(self, error: Exception) -> StoreUnusable:
        """Return what the jobs of a commit that failed are told."""
        if isinstance(error, FileNotFoundError):
            refusal = StoreUnusable(f"the queue {self._path} was moved or removed while it was in use")
        elif is_hopeless(error):
            refusal = refusal_of(self._path, error)
        else:
            why = "no memory is left" if isinstance(error, MemoryError) else error
            refusal = StoreUnusable(f"the queue {self._path} can't be written: {why}")
            refusal.__cause__ = error
            self._note(refusal)
            return refusal
        self._loop.call_soon_threadsafe(self._heed.broken, refusal)
        return refusal

    def _run_together(self, jobs: list[_Job], transaction: Transaction) -> list[_Outcome]:
        """Run insertions at once; where that fails, each by itself, so that it fails alone."""
        insertions = [job.run for job in jobs if isinstance(job.run, Insertion)]
        if len(jobs) > 1:
            job = _Job(lambda transaction: transaction.insert_together(insertions), jobs[0].future)
            _, numbers, failure = self._run(job, transaction)
            if failure is None:
                return [(job.future, ids, None) for job, ids in zip(jobs, numbers, strict=True)]
        return self._run_each(jobs, transaction)

    def _run_each(self, jobs: list[_Job], transaction: Transaction) -> list[_Outcome]:
        return [self._run(job, transaction) for job in jobs]

    def _run(self, job: _Job, transaction: Transaction) -> _Outcome:
        moved = len(transaction.moved)
        self._connection.execute("SAVEPOINT job")
        try:
            result = job.run(transaction)
        except sqlite3.IntegrityError as error:
            failure: AutodlError = InternalError(f"the database refused a change: {error}")
        except (sqlite3.Error, MemoryError):
            raise
        except AutodlError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - a defect in one job must not end the thread
            failure = InternalError(f"{type(error).__name__}: {error}")
            failure.__cause__ = error
        else:
            self._connection.execute("RELEASE job")
            return job.future, result, None
        self._connection.execute("ROLLBACK TO job")
        self._connection.execute("RELEASE job")
        del transaction.moved[moved:]
        return job.future, None, failure

    def _deliver(self, outcomes: list[_Outcome], moved: list[Moved]) -> None:
        try:
            if moved:
                self._heed.committed(moved)
        except StoreUnusable as error:
            logger.error("%s", error, extra={"event": "store_unusable"})
        except Exception:  # who listens may fail; who waits must hear all the same
            logger.exception("internal error after a commit", extra={"event": "defect"})
        for future, result, failure in outcomes:
            if future.done():
                continue
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)
                future.exception()  # who submitted it may have gone; that is no warning's matter


def _place_of(path: Path) -> tuple[int, int, int]:
    """Return which file has the database's name, and which its log's: commits to others would be lost with them.

    Raises: FileNotFoundError.
    """
    database, log = os.stat(path), os.stat(f"{path}-wal")
    return database.st_dev, database.st_ino, log.st_ino
