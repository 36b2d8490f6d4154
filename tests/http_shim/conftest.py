"""One daemon and one HTTP server for most tests of this folder; they leave nothing behind that another one sees."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.accounts import User, accounts
from support.daemon import Daemon
from support.http_front import HttpFront, MakeFront


@pytest.fixture(scope="session")
def web() -> Iterator[User]:
    """The account that serves HTTP."""
    with accounts("web") as made:
        yield made["web"]


@pytest.fixture(scope="module")
def shared(web: User) -> Iterator[Daemon]:
    folder = Path(tempfile.mkdtemp(prefix="autodl-h-"))
    folder.chmod(0o755)
    daemon = Daemon(folder).start()
    yield daemon
    orphans = daemon.end_all()
    assert (orphans, daemon.defects()) == ([], []), daemon.log_end()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def front(shared: Daemon, web: User) -> Iterator[HttpFront]:
    made = HttpFront(shared.folder, shared, web).start()
    yield made
    made.end()


@pytest.fixture
def make_front(place: Path, web: User) -> Iterator[MakeFront]:
    """Make servers for a daemon that are not started; `arguments` are the command line's."""
    made: list[HttpFront] = []

    def make(daemon: Daemon, *arguments: str) -> HttpFront:
        made.append(HttpFront(place, daemon, web, *arguments))
        return made[-1]

    yield make
    for front in made:
        front.end()
