"""A small file is expected at once; whatever comes in between, what has come of it is not lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.misbehaving_server import Case, MisbehavingServer
from worker_harness import WorkerHarness

from autodl_lib.contract.worker_messages import Finished, Grant, Halt, Halted, Order, SetRate

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
