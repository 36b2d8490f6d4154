"""Fixtures of the fault tests: daemons that can be made to fail, checked at the end like all others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from support.faulty import FaultyDaemon

CONFIG = """
max_tasks_num = 4
[transfer]
min_free_bytes = 0
connect_timeout_s = 5
connections = 2
[retry]
max_attempts = 0
first_delay_s = 0.05
max_delay_s = 0.2
"""

MakeFaulty = Callable[..., FaultyDaemon]


@pytest.fixture
def make_faulty(place: Path) -> Iterator[MakeFaulty]:
    """Make daemons with these crash points; at the end they must stop, leave no process and no defect in their log."""
    made: list[FaultyDaemon] = []

    def make(points: Iterable[str] = (), *, config: str = CONFIG, name: str = "daemon") -> FaultyDaemon:
        folder = place / name
        folder.mkdir()
        made.append(FaultyDaemon(folder, config=config, points=points))
        return made[-1]

    yield make
    orphans = [pid for daemon in made for pid in daemon.end_all()]
    assert orphans == [], [daemon.log_end() for daemon in made]
    assert [line for daemon in made for line in daemon.defects()] == [], [daemon.log_end() for daemon in made]
