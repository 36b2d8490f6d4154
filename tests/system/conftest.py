"""One machine for all tests of the service: it boots once, and is thrown away at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.machine import base_tree, machine
from support.service_machine import SERVICE, SOCKET, ServiceMachine

_FOLDER = Path(__file__).parent
_TIMEOUT_S = 600
"""The first test may have to make the base tree."""

_took_s = {"all": 0.0}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _FOLDER in item.path.parents:
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.nodeid.startswith("tests/system/"):
        _took_s["all"] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _took_s["all"]:
        terminalreporter.write_line(f"the system suite took {_took_s['all']:.0f} s")


@pytest.fixture(scope="session")
def booted() -> Iterator[ServiceMachine]:
    base_tree()
    folder = Path(tempfile.mkdtemp(prefix="autodl-machine-"))
    with machine(folder) as made:
        service = ServiceMachine(made)
        service.prepare()
        made.boot()
        service.install()
        yield service


@pytest.fixture
def service(booted: ServiceMachine) -> ServiceMachine:
    """The machine with its service running as it was installed."""
    booted.machine.ok("systemctl", "reset-failed", SERVICE, SOCKET)
    booted.machine.ok("systemctl", "start", SOCKET, SERVICE)
    return booted
