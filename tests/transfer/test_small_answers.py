"""Lists of checksums from servers that send too much, too slowly or nothing: the task fails in time and says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from behaviour import SMALL, TINY
from support.misbehaving_cases import Case
from support.misbehaving_server import MisbehavingServer
from worker_harness import WorkerHarness

from autodl_lib.contract.checksums import MAX_LIST_BYTES
from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.contract.worker_messages import Failed, Finished

LINE = b"0" * 64 + b"  other\n"
LIST = b"".join([LINE] * 100)


def ended(worker: WorkerHarness, server: MisbehavingServer, folder: Path, sums: Case) -> Failed:
    """Download a file whose list of checksums comes in some way; nothing may be published."""
    options = TransferOptions(checksums=(server.serve("/SHA256SUMS", sums),))
    report = worker.await_end(worker.assign(server.serve("/f", TINY), folder, options=options).lease)
    assert isinstance(report, Failed)
    assert "list of checksums" in report.message
    assert not (folder / "f").exists()
    return report


@pytest.fixture
def impatient(start_worker: Callable[..., WorkerHarness]) -> WorkerHarness:
    """A worker that does not wait for long."""
    return start_worker(connect_timeout_s=2.0, stall_timeout_s=2.0)


@pytest.mark.parametrize("hang_after", [0, 50])
def test_a_list_that_stops_coming_is_given_up(
    server: MisbehavingServer, impatient: WorkerHarness, folder: Path, hang_after: int
) -> None:
    report = ended(impatient, server, folder, Case(body=LIST, hang_after=hang_after))
    assert report.code is FailureCode.STALLED


@pytest.mark.parametrize("chunked", [False, True])
def test_a_list_that_is_too_long_is_not_read_to_its_end(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, chunked: bool
) -> None:
    endless = Case(body=LINE * (4 * MAX_LIST_BYTES // len(LINE)), chunked=chunked)
    report = ended(worker, server, folder, endless)
    assert report.code is FailureCode.PROTOCOL
    assert str(MAX_LIST_BYTES) in report.message


def test_a_list_that_is_cut_is_not_believed(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    report = ended(worker, server, folder, Case(body=LIST, cut_after=len(LINE) * 50))
    assert report.code is FailureCode.TRUNCATED


def test_a_list_whose_head_breaks_off_is_not_believed(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    report = ended(worker, server, folder, Case(raw=b"HTTP/1.1 200 OK\r\nContent-Type: te"))
    assert report.code is FailureCode.TRUNCATED


def test_after_a_list_that_stalled_the_worker_serves_the_next_task(
    server: MisbehavingServer, impatient: WorkerHarness, folder: Path
) -> None:
    ended(impatient, server, folder, Case(body=LIST, hang_after=50))
    for name in ("/g", "/h"):
        url = server.serve(name, replace(TINY, body=SMALL))
        assert isinstance(impatient.await_end(impatient.assign(url, folder).lease), Finished)
        assert (folder / name[1:]).read_bytes() == SMALL
