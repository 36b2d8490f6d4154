"""File systems of a network or in user space may answer a close with an error: it counts where it tells something."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.misbehaving_server import Case, MisbehavingServer
from support.strace import Strace, fail_at
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.worker_messages import Failed, Finished, Halt, Halted, Publish, Ready

SMALL, LARGE = os.urandom(10_240), os.urandom(1_000_000)
BODIES = pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
CLOSE_FAILS = fail_at("close", "EIO", "1+")


def is_alive(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> bool:
    worker.auto_publish = True
    return isinstance(worker.finish(worker.assign(server.serve("/next", Case(body=SMALL)), folder)), Finished)


@BODIES
def test_a_file_that_was_synced_is_finished_whatever_its_close_says(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path, body: bytes
) -> None:
    worker.auto_publish = False
    assign = worker.assign(server.serve("/f", Case(body=body, etag='"v1"')), folder)
    worker.await_report(Ready, assign.lease)
    with Strace(worker.process.pid, tmp_path / "calls", *CLOSE_FAILS) as calls:
        worker.order(Publish(leases=(assign.lease,)))
        assert isinstance(worker.await_end(assign.lease), Finished)
        calls.stop()
        assert "EIO" in calls.text()
    assert is_alive(server, worker, folder)
    assert (folder / "f").read_bytes() == body
    assert sorted(path.name for path in folder.iterdir()) == ["f", "next"]


@BODIES
def test_a_file_that_is_not_synced_gets_no_name_when_its_bytes_were_lost(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], folder: Path, tmp_path: Path, body: bytes
) -> None:
    worker = start_worker(durable=False)
    assert is_alive(server, worker, folder)
    with Strace(worker.process.pid, tmp_path / "calls", *CLOSE_FAILS):
        failed = worker.finish(worker.assign(server.serve("/f", *[Case(body=body, etag='"v1"')] * 2), folder))
    assert isinstance(failed, Failed)
    assert failed.code is FailureCode.DISK
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == ["next"]
    assert is_alive(server, worker, folder)


def test_a_part_that_was_synced_is_kept_whatever_its_close_says(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path
) -> None:
    assign = worker.assign(server.serve("/f", Case(body=LARGE, etag='"v1"', hold_after=600_000)), folder)
    assert server.held.acquire(timeout=45)
    with Strace(worker.process.pid, tmp_path / "calls", *CLOSE_FAILS):
        worker.order(Halt(lease=assign.lease, discard=False))
        halted = worker.await_end(assign.lease)
    assert isinstance(halted, Halted)
    assert halted.part == ".f.autodl-part"
    assert halted.bytes_done > 0
    assert (folder / ".f.autodl-ctl").exists()
    assert is_alive(server, worker, folder)
