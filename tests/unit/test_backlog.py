"""What a worker says to orders for an assignment that has just ended."""

from __future__ import annotations

import select
from pathlib import Path

import pytest
from support.assignments import assignment

from autodl_lib.contract.worker_messages import Grant, Halt, Report, SetRate
from autodl_lib.worker.backlog import Backlog
from autodl_lib.worker.files.folder import Folders
from autodl_lib.worker.main import default_settings
from autodl_lib.worker.network.connection import Connections
from autodl_lib.worker.network.engine import Engine
from autodl_lib.worker.pulse import Facilities
from autodl_lib.worker.reporting import ReportBuffer
from autodl_lib.worker.sync_thread import SyncThread

LEASE = "0123456789abcdef"


class Sent:
    """Reports that were sent."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    def put(self, reports: list[Report]) -> None:
        """Take reports."""
        self.reports += reports


class Begun:
    """A worker's backlog whose only assignment has begun."""

    def __init__(self, folder: Path) -> None:
        self._sent, self._sync = Sent(), SyncThread()
        self._buffer = ReportBuffer(self._sent)
        facilities = Facilities(
            connections=Connections(Engine(select.epoll())),
            folders=Folders(),
            sync=self._sync,
            reports=self._buffer,
            settings=default_settings(),
        )
        self.backlog = Backlog(facilities)
        assign = assignment("http://127.0.0.1:1/x", folder, lease=LEASE)
        self.backlog.obey([assign])
        self.backlog.step(0.0)
        current = self.backlog._find(LEASE)
        assert current is not None
        self.session = current

    def said(self) -> list[str]:
        """End it, and return the kinds of what was reported."""
        self._buffer.flush()
        self._sync.stop()
        return [report.type for report in self._sent.reports]


@pytest.mark.parametrize("order", [Grant(lease=LEASE, connections=(1,)), SetRate(lease=LEASE, limit_rate_bps=1000)])
def test_of_an_assignment_that_ended_in_the_same_turn_nothing_more_is_said(
    tmp_path: Path, order: Grant | SetRate
) -> None:
    begun = Begun(tmp_path)
    begun.session.halt(discard=False)  # as a failure does, between two turns of the loop
    begun.backlog.obey([order, Halt(lease=LEASE, discard=False)])
    assert begun.said() == ["halted"]


def test_a_grant_in_which_a_failure_comes_to_light_is_not_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = Begun(tmp_path)
    # What went wrong inside of libcurl is acted on with the next order.
    monkeypatch.setattr(begun.session, "grant", lambda _: begun.session.halt(discard=False))
    begun.backlog.obey([Grant(lease=LEASE, connections=(1,))])
    assert begun.said() == ["halted"]
