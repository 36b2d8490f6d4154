"""A root daemon, three users and an administrator, each with a connection of their own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.accounts import User, accounts
from support.daemon import Daemon
from support.nginx import Nginx
from support.queue_model import Kind
from support.rpc import Wire

PLAIN = ("alice", "bob", "carol")
ACTORS = (*PLAIN, "admin")
ADMINS = f"adlt-any-{secrets.token_hex(3)}"
CONFIG = f"""
max_tasks_num = 60
[transfer]
min_free_bytes = 0
connect_timeout_s = 5
connections = 1
connections_per_host = 1000
[retry]
first_delay_s = 3600
max_delay_s = 3600
[access]
admin_group = "{ADMINS}"
"""


def wire_of(user: User, path: Path) -> Wire:
    """Connect as a user: who a connection is of is who made it, whoever speaks on it later."""
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        return Wire(path)
    finally:
        os.seteuid(0)
        os.setegid(0)


class Stage:
    """One daemon for all runs, and a connection of each user."""

    def __init__(self, daemon: Daemon, users: dict[str, User], nginx: Nginx) -> None:
        self.daemon = daemon
        self.users = users
        self.wires = {name: wire_of(user, daemon.socket) for name, user in users.items()}
        self.root = Wire(daemon.socket)
        self.urls = {
            Kind.WHOLE: nginx.file("any/whole.bin", 2000).url,
            Kind.MISSING: f"{nginx.base}/any/missing.bin",
            Kind.REFUSED: "http://127.0.0.1:1/any/refused.bin",
            Kind.SLOW: nginx.file("any/slow.bin", 3_000_000, rate="1k").slow_url,
        }

    def everything(self) -> list[dict[str, Any]]:
        """Return all tasks of all users, as root sees them."""
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = self.root.call("list", all=True, after=after, limit=5000)
            found += page["tasks"]
            after = page["next"]
        return found


@contextlib.contextmanager
def open_stage(nginx: Nginx) -> Iterator[Stage]:
    """Start it, and at the end see that it had no defect and has logged no password."""
    folder = Path(tempfile.mkdtemp(prefix="autodl-any-"))
    folder.chmod(0o755)
    with accounts(*ACTORS, groups={"admin": [ADMINS]}) as users:
        daemon = Daemon(folder, config=CONFIG)
        try:
            yield Stage(daemon.start(), users, nginx)
        finally:
            assert daemon.end_all() == []
        assert daemon.defects() == [], daemon.log_end()
        assert "hunter" not in daemon.log()
    shutil.rmtree(folder)
