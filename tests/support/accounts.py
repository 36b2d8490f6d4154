"""Real accounts of the machine for a test run, and doing things as them."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import json
import os
import pwd
import secrets
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.rpc import Refused, Wire

_UIDS = range(20_000, 60_000)
_TURNS = Path(tempfile.gettempdir(), "autodl-tests-of-accounts.lock")
"""Whose turn it is to change the accounts: the tools give up soon where others are at it, too."""


@dataclass(frozen=True, slots=True)
class User:
    """An account."""

    name: str
    uid: int
    gid: int
    home: Path
    groups: frozenset[int]

    def do(self, work: Callable[[], Any]) -> Any:
        """Run `work` as the user, in a child that forks and never execs; return its JSON-able result.

        Raises: Refused, as raised by `work`; AssertionError for anything else that goes wrong there.
        """
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            try:
                os.setgroups(sorted(self.groups))
                os.setresgid(self.gid, self.gid, self.gid)
                os.setresuid(self.uid, self.uid, self.uid)
                answer = {"result": work()}
            except Refused as error:
                answer = {"refused": {"data": {"code": error.code}, "message": error.message}}
            except BaseException:  # noqa: BLE001
                answer = {"broken": traceback.format_exc()}
            with open(writer, "w") as pipe:
                json.dump(answer, pipe)
            os._exit(0)
        os.close(writer)
        with open(reader) as pipe:
            text = pipe.read()
        os.waitpid(child, 0)
        answer = json.loads(text)
        if "refused" in answer:
            raise Refused(answer["refused"])
        assert "broken" not in answer, answer["broken"]
        return answer["result"]

    def call(self, path: Path, method: str, **params: Any) -> Any:
        """Ask a daemon as the user.

        Raises: Refused.
        """

        def work() -> Any:
            with Wire(path) as wire:
                return wire.call(method, **params)

        return self.do(work)

    def first_answer(self, path: Path) -> dict[str, Any]:
        """Return what a daemon says to the user after its greeting, unasked."""

        def work() -> Any:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(30)
                peer.connect(str(path))
                data = b""
                while chunk := peer.recv(65536):
                    data += chunk
            return json.loads(data.splitlines()[-1])

        answer = self.do(work)
        assert isinstance(answer, dict)
        return answer


@contextlib.contextmanager
def accounts(*names: str, groups: dict[str, list[str]] | None = None) -> Iterator[dict[str, User]]:
    """Make accounts, with homes that nobody else enters and each in a group of its own besides; remove them after.

    Their numbers come at random: what one has left behind in a queue must not become that of the next.
    """
    check_others_can_run(Path(sys.executable))
    mark = secrets.token_hex(3)
    made: dict[str, User] = {}
    extra_groups = {group for wanted in (groups or {}).values() for group in wanted}
    with turn_at_accounts():
        new_groups = [group for group in extra_groups if subprocess.run(["groupadd", group], stderr=-3).returncode == 0]
    try:
        with turn_at_accounts():
            for name in names:
                made[name] = _made(f"adlt-{name}-{mark}", (groups or {}).get(name, []))
        yield made
    finally:
        with turn_at_accounts():
            for user in made.values():
                subprocess.run(["userdel", "-r", "-f", user.name], check=True, stderr=subprocess.DEVNULL)
            for group in new_groups:
                subprocess.run(["groupdel", group], check=True)


def check_others_can_run(program: Path) -> None:
    """Fail in a sentence where these tests can't work: they run this very Python as accounts that they make."""
    for path in (program, program.resolve()):
        closed = [folder for folder in path.parents if not folder.stat().st_mode & 0o001]
        assert not closed, (
            f"nobody but root gets at {path}, since {closed[-1]} is closed to others, and these tests run it as others;"
            " make the environment with a Python that everybody may run, such as /usr/bin/python3"
        )


def _made(account: str, groups: list[str]) -> User:
    options = ["-G", ",".join(groups)] if groups else []
    taken = {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()}
    options += ["-u", str(secrets.choice([uid for uid in _UIDS if uid not in taken]))]
    subprocess.run(["useradd", "-m", "-U", "-s", "/bin/sh", *options, account], check=True)
    entry = pwd.getpwnam(account)
    home = Path(entry.pw_dir)
    home.chmod(0o700)
    return User(account, entry.pw_uid, entry.pw_gid, home, frozenset(os.getgrouplist(account, entry.pw_gid)))


@contextlib.contextmanager
def turn_at_accounts() -> Iterator[None]:
    """Be the only one of the tests who changes accounts or groups."""
    with _TURNS.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
