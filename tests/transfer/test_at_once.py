"""A small file is expected at once; whatever comes in between, what has come of it is not lost."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.assignments import assignment
from support.misbehaving_server import Case, MisbehavingServer
from support.waiting import wait_until
from worker_harness import WorkerHarness

from autodl_lib.contract.codec import dumps, message_to_json
from autodl_lib.contract.worker_messages import (
    Finished,
    Grant,
    Halt,
    Halted,
    Order,
    Ping,
    Ready,
    Report,
    SetRate,
)
from autodl_lib.worker.main import Worker

BODY = os.urandom(10_240)
PIECES = os.urandom(100_000)
HALF = Case(body=BODY, hold_after=5000)


@pytest.mark.parametrize(
    "order",
    [
        lambda lease: SetRate(lease=lease, limit_rate_bps=10_000_000),
        lambda lease: Grant(lease=lease, connections=(2,)),
    ],
)
def test_an_order_that_comes_when_half_of_the_file_is_here_loses_no_byte(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, order: Callable[[str], Order]
) -> None:
    assign = worker.assign(server.serve("/f", HALF), folder)
    server.held.acquire()
    worker.order(order(assign.lease))
    server.release()
    finished = worker.finish(assign)
    assert isinstance(finished, Finished)
    assert Path(finished.dest).read_bytes() == BODY
    assert len(server.requests) == 1


def test_a_halt_that_comes_when_half_of_the_file_is_here_leaves_nothing(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    assign = worker.assign(server.serve("/f", HALF), folder)
    server.held.acquire()
    worker.order(Halt(lease=assign.lease, discard=True))
    assert isinstance(worker.await_end(assign.lease), Halted)
    assert list(folder.iterdir()) == []


def test_a_file_of_several_pieces_is_saved_as_it_is(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    assigns = [worker.assignment(server.serve(f"/f{number}", Case(body=PIECES)), folder) for number in range(3)]
    worker.order(*assigns)
    for assign in assigns:
        finished = worker.finish(assign)
        assert isinstance(finished, Finished)
        assert Path(finished.dest).read_bytes() == PIECES


def test_an_answer_that_comes_while_the_worker_is_held_up_is_no_late_one(
    server: MisbehavingServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is held up by an order, while the answer comes and all time limits pass: what waits does not go back."""
    clock, kept = Clock(monkeypatch), Kept()
    orders_fd, write_fd = os.pipe()
    worker = Worker(orders_fd, kept, None)
    url = server.serve("/f", HALF)

    def hold_up() -> None:
        server.release()
        wait_until(lambda: server.sent_bytes >= len(BODY), "all is sent")
        clock.now += 1

    worker._backlog.obey([assignment(url, folder, lease="first"), assignment(url, folder, lease="second")])
    worker._backlog.step(clock.now)
    while not server.held.acquire(blocking=False):
        worker._turn()
    monkeypatch.setattr(worker._backlog, "obey", lambda _: hold_up())
    os.write(write_fd, dumps(message_to_json(Ping())))
    while len(kept.reports) < 2:
        worker._turn()
    os.close(write_fd)
    worker._leave()
    os.close(orders_fd)
    assert [type(report) for report in kept.reports] == [Ready, Ready]


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EISDIR])
def test_where_there_are_no_unnamed_files_what_came_at_once_goes_into_a_part_file(
    server: MisbehavingServer, folder: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    asked: list[int] = []
    real_open = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            asked.append(flags)
            raise OSError(error, os.strerror(error))
        return real_open(path, flags, mode, dir_fd=dir_fd)

    clock = Clock(monkeypatch)
    monkeypatch.setattr(os, "open", refuse)
    kept = Kept()
    orders_fd, write_fd = os.pipe()
    worker = Worker(orders_fd, kept, None)
    worker._backlog.obey([assignment(server.serve(f"/{name}", Case(body=BODY)), folder, lease=name) for name in "fg"])
    worker._backlog.step(clock.now)
    while len(kept.reports) < 2:
        worker._turn()
        clock.now += 0.0005
    os.close(write_fd)
    worker._leave()
    os.close(orders_fd)
    assert [report.part for report in kept.reports if isinstance(report, Ready)] == [".f.autodl-part", ".g.autodl-part"]
    assert len(asked) == 1
    assert len(server.requests) == 2


class Clock:
    """time.monotonic, which stands still until it is set forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


class Kept:
    """A report queue."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    def put(self, reports: list[Report]) -> None:
        """Keep them."""
        self.reports += reports
