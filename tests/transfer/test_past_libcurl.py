"""A large body that comes fast goes from its socket into the part file past libcurl, whatever happens on the way."""

from __future__ import annotations

import hashlib
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.misbehaving_server import Case, MisbehavingServer
from support.nginx import Nginx
from support.waiting import wait_until
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.worker_messages import Assign, Failed, Finished, Grant, Halt, Halted, Retire, SetRate, Started

MIB = 1024 * 1024
BODY = os.urandom(64 * MIB)
GOOD = Case(body=BODY, etag='"v1"', headers=("Accept-Ranges: bytes",))
HELD = replace(GOOD, hold_after=40 * MIB)
PART = ".f.autodl-part"
AT_ANY_SPEED = {"autodl_lib.worker.transfer.segment:_WORTH_A_TAP_BPS": 0}
"""What is fast on an idle machine need not be so on one that runs three tests at a time."""


@pytest.fixture
def worker(start_worker: Callable[..., WorkerHarness]) -> WorkerHarness:
    """A worker whose time-outs are longer than any test waits."""
    return start_worker(stall_timeout_s=300.0, connect_timeout_s=300.0, constants=AT_ANY_SPEED)


def has_tap(worker: WorkerHarness) -> bool:
    """Tell whether a worker holds both ends of a pipe that is not the one for its signals."""
    ends: Counter[str] = Counter()
    for entry in Path(f"/proc/{worker.process.pid}/fd").iterdir():
        try:
            ends[os.readlink(entry)] += 1
        except FileNotFoundError:
            continue
    return sum(name.startswith("pipe:") and count == 2 for name, count in ends.items()) == 2


def begin(server: MisbehavingServer, worker: WorkerHarness, folder: Path, *cases: Case) -> Assign:
    """Start a download that holds after 40 MiB; returns when they are in the part file, past libcurl."""
    assign = worker.assign(server.serve("/f", *cases), folder)
    assert server.held.acquire(timeout=30)
    worker.await_report(Started, assign.lease)
    wait_until(lambda: holds(folder / PART, 40 * MIB - 1), what="40 MiB in the part file")
    assert has_tap(worker)
    return assign


def holds(part: Path, offset: int) -> bool:
    """Tell whether a part file has a byte."""
    with part.open("rb") as file:
        file.seek(offset)
        return file.read(1) == BODY[offset : offset + 1]


def finishes(worker: WorkerHarness, assign: Assign, folder: Path) -> None:
    """See that the file is right, and nothing else is there."""
    assert isinstance(worker.await_end(assign.lease), Finished)
    assert (folder / "f").read_bytes() == BODY
    assert [path.name for path in folder.iterdir()] == ["f"]
    wait_until(lambda: not has_tap(worker), what="the pipe to be closed")


def test_the_file_is_right(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    assign = begin(server, worker, folder, HELD)
    server.release()
    finishes(worker, assign, folder)
    assert len(server.requests) == 1


def test_a_connection_that_served_small_files_before_is_no_hindrance(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    for name in ("a", "b", "c"):
        small = worker.assign(server.serve(f"/{name}", Case(body=b"small", etag='"s"')), folder)
        assert isinstance(worker.await_end(small.lease), Finished)
        (folder / name).unlink()
    assign = begin(server, worker, folder, HELD)
    assert server.connections == 1
    server.release()
    finishes(worker, assign, folder)


@pytest.mark.parametrize("body", [b"", b"moved"])
@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_redirect_is_no_hindrance(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, elsewhere: bool, body: bytes
) -> None:
    with MisbehavingServer() as other:
        target = (other if elsewhere else server).serve("/f", HELD if elsewhere or not body else GOOD)
        moved = Case(status="302 Found", headers=(f"Location: {target}",), body=body)
        assign = worker.assign(server.serve("/moved", moved), folder, output="f")
        if elsewhere:
            assert other.held.acquire(timeout=30)
            worker.await_report(Started, assign.lease)
            wait_until(lambda: holds(folder / PART, 40 * MIB - 1), what="40 MiB in the part file")
            assert has_tap(worker)
        other.release()
        server.release()
        finishes(worker, assign, folder)


@pytest.mark.parametrize("reset", [False, True])
def test_what_is_cut_goes_on_where_it_was(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, reset: bool
) -> None:
    assign = begin(server, worker, folder, replace(HELD, cut_after=MIB, reset=reset), GOOD)
    server.release()
    failed = worker.await_end(assign.lease)
    assert isinstance(failed, Failed)
    assert failed.code is (FailureCode.NETWORK if reset else FailureCode.TRUNCATED)
    assert 40 * MIB <= failed.bytes_done <= 41 * MIB
    again = worker.assign(assign.url, folder, tag=assign.tag, name="f", part=PART)
    finishes(worker, again, folder)
    assert server.requests[-1].range == f"bytes={failed.bytes_done}-"


def test_a_server_that_sends_more_than_it_said_is_not_listened_to(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    assign = begin(server, worker, folder, replace(HELD, after=b"more" * 1000))
    server.release()
    finishes(worker, assign, folder)


def test_a_halted_task_keeps_its_bytes(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    assign = begin(server, worker, folder, HELD, GOOD)
    worker.order(Halt(lease=assign.lease, discard=False))
    halted = worker.await_end(assign.lease)
    assert isinstance(halted, Halted)
    assert halted.bytes_done == 40 * MIB
    again = worker.assign(assign.url, folder, tag=assign.tag, name="f", part=halted.part)
    finishes(worker, again, folder)
    assert server.requests[-1].range == f"bytes={40 * MIB}-"


def test_a_killed_worker_leaves_only_right_bytes(
    server: MisbehavingServer, worker: WorkerHarness, start_worker: Callable[..., WorkerHarness], folder: Path
) -> None:
    assign = begin(server, worker, folder, HELD, GOOD)
    started = worker.await_report(Started, assign.lease)
    worker.process.send_signal(signal.SIGKILL)
    worker.process.wait()
    other = start_worker()
    again = other.assign(assign.url, folder, tag=assign.tag, name=started.name, part=started.part)
    finishes(other, again, folder)


def test_a_retired_worker_keeps_the_bytes(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    assign = begin(server, worker, folder, HELD, GOOD)
    worker.order(Retire())
    worker.order(Halt(lease=assign.lease, discard=False))
    halted = worker.await_end(assign.lease)
    assert isinstance(halted, Halted)
    assert halted.bytes_done == 40 * MIB


def test_a_rate_limit_that_comes_later_is_kept_and_lifted(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    assign = begin(server, worker, folder, HELD)
    worker.order(SetRate(lease=assign.lease, limit_rate_bps=100_000))
    server.release()
    wait_until(lambda: holds(folder / PART, 40 * MIB + 60_000), what="bytes under the limit")
    assert not holds(folder / PART, 60 * MIB)
    worker.order(SetRate(lease=assign.lease, limit_rate_bps=0))
    finishes(worker, assign, folder)


def test_a_server_that_sends_no_more_fails_the_attempt_and_the_next_goes_on(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], folder: Path
) -> None:
    worker = start_worker(stall_timeout_s=5.0, constants=AT_ANY_SPEED)
    assign = begin(server, worker, folder, HELD, GOOD)
    failed = worker.await_end(assign.lease)
    assert isinstance(failed, Failed)
    assert failed.code is FailureCode.STALLED
    again = worker.assign(assign.url, folder, tag=assign.tag, name="f", part=PART)
    finishes(worker, again, folder)
    assert server.requests[-1].range == f"bytes={40 * MIB}-"


def test_connections_that_are_granted_later_take_over_a_share(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    slow = replace(GOOD, rate_bps=8 * MIB)
    assign = begin(server, worker, folder, HELD, slow)
    worker.order(Grant(lease=assign.lease, connections=(4,)))
    wait_until(lambda: len(server.requests) > 1, what="another connection")
    server.release()
    finishes(worker, assign, folder)


@pytest.mark.parametrize("case", [replace(GOOD, chunked=True), replace(GOOD, before=b"HTTP/1.1 100 Continue\r\n\r\n")])
def test_bodies_of_other_shapes_are_right(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, case: Case
) -> None:
    finishes(worker, worker.assign(server.serve("/f", case), folder), folder)


def test_several_files_come_one_after_the_other(nginx: Nginx, worker: WorkerHarness, folder: Path) -> None:
    files = {name: nginx.file(name, 48 * MIB, rate="0") for name in ("one", "two", "three", "four")}
    assigns = [worker.assign(f"{nginx.base}/{name}", folder) for name in files]
    for assign in assigns:
        assert isinstance(worker.finish(assign), Finished)
    for name, served in files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == served.sha256
        nginx.remove(name)
    assert not has_tap(worker)
