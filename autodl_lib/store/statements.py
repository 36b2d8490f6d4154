"""The store's SQL, read once from the .sql files beside this module, by name.

Runs as: the supervisor.  Talks to: its own package folder, at import.
"""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent
_MARK = "-- name: "


def load_statements(file: str) -> dict[str, str]:
    """Return the statements of `sql/<file>` by the names on their `-- name:` lines."""
    statements: dict[str, str] = {}
    name = None
    for line in (_FOLDER / "sql" / file).read_text("utf-8").splitlines():
        if line.startswith(_MARK):
            name = line.removeprefix(_MARK).strip()
            statements[name] = ""
        elif name is not None and line.strip():
            statements[name] += line + "\n"
    return statements


def migrations() -> list[str]:
    """Return the scripts that take a database from version 0 upward, one a version, in order."""
    return [path.read_text("utf-8") for path in sorted((_FOLDER / "migrations").glob("*.sql"))]


SQL = load_statements("tasks.sql") | load_statements("records.sql") | load_statements("listing.sql")
