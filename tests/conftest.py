"""Fixtures of all tests that run real processes: a server, a folder with a short path, daemons."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from support.daemon import QUICK, Daemon, MakeDaemon
from support.nginx import Nginx

# A shell that starts the tests in the background has them ignore Ctrl-C, and with them each program that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


# A machine that does other things besides may take any time for anything.
settings.register_profile("loaded", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loaded")


SLOWEST_FIRST = ("system", "faults", "transfer", "privilege", "integration", "http_shim", "wire", "cli", "unit", "docs")
"""Folders; others come behind them."""


def pytest_configure(config: pytest.Config) -> None:
    # Newer versions of xdist would have the files with the most tests begin, which are the quickest.
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests, order = Path(__file__).parent, {folder: place for place, folder in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.relative_to(tests).parts[0], len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several processes (-n 3), a file's tests stay in one, and all that share the booted machine."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return "system" if "/system/" in path else path

    return ByFile(config, log)


@pytest.fixture(scope="session")
def nginx() -> Iterator[Nginx]:
    folder = Path(tempfile.mkdtemp(prefix="autodl-nginx-"))
    folder.chmod(0o755)
    server = Nginx(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, with a path that is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="autodl-t-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def make_daemon(place: Path) -> Iterator[MakeDaemon]:
    """Make daemons that are not started; at the end they must stop, leave no process and no defect in their log."""
    made: list[Daemon] = []

    def make(*arguments: str, name: str | None = None, config: str = QUICK) -> Daemon:
        folder = place if name is None else place / name
        folder.mkdir(exist_ok=True)
        made.append(Daemon(folder, config=config, arguments=arguments))
        return made[-1]

    yield make
    orphans = [pid for daemon in made for pid in daemon.end_all()]
    assert orphans == [], [daemon.log_end() for daemon in made]
    assert [line for daemon in made for line in daemon.defects()] == [], [daemon.log_end() for daemon in made]


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> Daemon:
    return make_daemon().start()
