"""Runs as: the supervisor. The queue on disk, and the only user of sqlite3."""
