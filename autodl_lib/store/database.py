"""Opening the queue's database: the right file, whole, of a version that we know, and locked by nobody else.

Runs as: the supervisor.  Talks to: sqlite3.
Invariants: what can't be used is refused with a sentence, and never replaced by a new, empty one.
How it fails: who reads gets StoreUnusable, and the store hears of it.
Durability: WAL with synchronous=FULL, so a commit that has returned survives a power cut.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Self

from autodl_lib.contract.errors import StoreUnusable
from autodl_lib.contract.urls import redact_url
from autodl_lib.store.statements import SQL, migrations

APPLICATION_ID = 0x6175746F
"""'auto' in the file's header, so that another program's database is refused."""

_CHECKED_WHOLE_BYTES = 64 * 1024 * 1024
_BUSY_TIMEOUT_S = 5.0
_CHECKPOINT_PAGES = 4000


def open_database(path: Path) -> sqlite3.Connection:
    """Open the database for writing, made or migrated as needed.

    Raises: StoreUnusable.
    """
    try:
        fresh = not path.exists()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = _connect(path)
        _check(connection, path, fresh=fresh)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA cache_size = -8192")
        # A page that many adds share is then copied to its place once for all of them.
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        # What is overwritten or deleted may be a secret.
        connection.execute("PRAGMA secure_delete = ON")
        connection.create_function("redact_url", 1, redact_url, deterministic=True)
        _migrate(connection, path)
    except (sqlite3.Error, OSError) as error:
        raise StoreUnusable(_refusal(path, error)) from None
    return connection


def open_reader(path: Path, on_error: Callable[[StoreUnusable], None] = lambda _: None) -> sqlite3.Connection:
    """Open a second connection that only reads; it sees what has been committed.

    What fails raises StoreUnusable, and tells `on_error` before that.
    """
    connection = sqlite3.connect(
        path,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        factory=_ReadConnection,
    )
    connection.refuse = lambda error: _refuse(path, error, on_error)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA cache_size = -8192")
    return connection


def database_tag(connection: sqlite3.Connection) -> str:
    """Return the random word that tells this queue from every other, as part of its tasks' tags."""
    row = connection.execute(SQL["database_tag"]).fetchone()
    return str(row[0])


_HOPELESS = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PROTOCOL})


def is_hopeless(error: BaseException) -> bool:
    """Tell whether what a database says won't pass for this connection: it is damaged, gone, or its locks are stuck."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _HOPELESS or code == sqlite3.SQLITE_READONLY_DBMOVED


def refusal_of(path: Path, error: Exception) -> StoreUnusable:
    """Return the sentence for an error of the database, or of the file system below it."""
    return StoreUnusable(_refusal(path, error))


def _refuse(path: Path, error: sqlite3.Error, on_error: Callable[[StoreUnusable], None]) -> NoReturn:
    refusal = refusal_of(path, error)
    on_error(refusal)
    raise refusal from None


class _ReadConnection(sqlite3.Connection):
    """A connection whose errors are StoreUnusable."""

    refuse: Callable[[sqlite3.Error], NoReturn]

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        return self.cursor(_ReadCursor).execute(*arguments)


class _ReadCursor(sqlite3.Cursor):
    """A statement is run by `execute` up to its first row, and by what fetches from there on."""

    connection: _ReadConnection

    def execute(self, *arguments: Any) -> Self:
        try:
            return super().execute(*arguments)
        except sqlite3.Error as error:
            self.connection.refuse(error)

    def fetchone(self) -> Any:
        try:
            return super().fetchone()
        except sqlite3.Error as error:
            self.connection.refuse(error)

    def fetchall(self) -> list[Any]:
        try:
            return super().fetchall()
        except sqlite3.Error as error:
            self.connection.refuse(error)

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except sqlite3.Error as error:
            self.connection.refuse(error)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
    )


def _check(connection: sqlite3.Connection, path: Path, *, fresh: bool) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    empty = connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()[0] == 0
    if application != APPLICATION_ID and not (empty and version == 0):
        raise StoreUnusable(f"{path} is a database, but not autodl's; move it away, or use another --state-dir")
    known = len(migrations())
    if version > known:
        raise StoreUnusable(
            f"{path} has version {version}, this autodl knows up to {known}: start the newer autodl that wrote it"
        )
    if not fresh and path.stat().st_size <= _CHECKED_WHOLE_BYTES:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise StoreUnusable(f"{path} is damaged ({' '.join(str(verdict).split())}); {_RESCUE.format(path=path)}")


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    scripts = migrations()
    for number, script in enumerate(scripts[version:], start=version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{script}\n"
            f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;"
        )
    if connection.execute(SQL["database_tag"]).fetchone() is None:
        connection.execute(SQL["set_database_tag"], (secrets.token_hex(8),))


_RESCUE = "save what can be saved with `sqlite3 {path} .recover`, then move the file away and start again"


def _refusal(path: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"can't open the queue {path}: {error.strerror}"
    text = str(error)
    if "malformed" in text or "not a database" in text:
        return f"{path} is damaged ({text}); {_RESCUE.format(path=path)}"
    if "locked" in text:
        return f"{path} is in use by another program; stop it first"
    return f"can't use the queue {path}: {text}"
