"""Heads that break off, dates that two versions may share, and which answer's code is the task's."""

from __future__ import annotations

import email.utils
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.misbehaving_cases import Page
from support.misbehaving_server import Case, MisbehavingServer
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.task import OnConflict
from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.contract.worker_messages import Failed, Finished, Halt, Ready, Started

BODY = os.urandom(400_000)
OTHER = os.urandom(400_000)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n",
        b"HTTP/1.1 200 OK\r\nConte",
        b"HTTP/1.0 200 OK\r\nX: y\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /end\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_an_answer_that_breaks_off_in_its_head_is_no_empty_file(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, head: bytes
) -> None:
    server.serve("/end", Case(raw=b"HTTP/1.1 200 OK\r\nX: y\r\n"))
    url = server.serve("/f", Case(raw=head))
    (folder / "f").write_bytes(b"mine")
    for on_conflict in (OnConflict.OVERWRITE, OnConflict.RENAME):
        failed = worker.await_end(worker.assign(url, folder, on_conflict=on_conflict).lease)
        assert isinstance(failed, Failed)
        assert failed.code in (FailureCode.TRUNCATED, FailureCode.NETWORK)
    assert [path.name for path in folder.iterdir()] == ["f"]
    assert (folder / "f").read_bytes() == b"mine"


@pytest.mark.parametrize("ending", [b"\r\n\r\n", b"\n\n"])
def test_an_empty_file_with_a_whole_head_is_one(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, ending: bytes
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0" + ending
    finished = worker.finish(worker.assign(server.serve("/f", Case(raw=head)), folder))
    assert isinstance(finished, Finished)
    assert (folder / "f").read_bytes() == b""


@pytest.mark.parametrize(("age_s", "resumes"), [(3600, True), (2, True), (0, False), (-5, False), (-90000, False)])
def test_a_date_of_the_very_second_of_the_answer_proves_nothing(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, age_s: int, resumes: bool
) -> None:
    """What was changed in that second may be changed again in it: RFC 9110, section 8.8.2.2."""
    now = int(time.time())
    date = f"Date: {email.utils.formatdate(now, usegmt=True)}"
    case = Case(
        body=BODY,
        last_modified=email.utils.formatdate(now - age_s, usegmt=True),
        headers=(date,),
        hold_after=200_000,
    )
    changed = Case(body=OTHER, last_modified=case.last_modified, headers=(date,))
    url = server.serve("/f", case, changed, changed)
    first = worker.assign(url, folder)
    worker.await_report(Started, first.lease, such=lambda report: report.part is not None)
    assert server.held.acquire(timeout=30)
    worker.order(Halt(lease=first.lease, discard=False))
    halted = worker.await_end(first.lease)
    server.release()
    assert (halted.part is not None) is resumes  # type: ignore[union-attr]
    if not resumes:
        finished = worker.finish(worker.assign(url, folder, tag=first.tag))
        assert isinstance(finished, Finished)
        assert Path(finished.dest).read_bytes() == OTHER


def test_the_file_s_date_is_given_to_it_all_the_same(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    now = email.utils.formatdate(1_700_000_000, usegmt=True)
    case = Case(body=BODY, last_modified=now, headers=(f"Date: {now}",))
    options = TransferOptions(remote_time=True)
    assert isinstance(worker.finish(worker.assign(server.serve("/f", case), folder, options=options)), Finished)
    assert (folder / "f").stat().st_mtime == 1_700_000_000


def test_the_code_is_that_of_the_answer_that_brought_the_file(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], folder: Path
) -> None:
    """A further connection that is refused changes nothing of it."""
    body = os.urandom(8_000_000)
    slow = Case(body=body, etag='"v"', rate_bps=2_000_000)
    refused = Case(status="503 Service Unavailable")
    url = server.serve_page(Page(path="/f", cases=(slow, refused)))
    worker = start_worker(connections=4)
    assign = worker.assign(url, folder, connections=(4,))
    ready = worker.await_report(Ready, assign.lease)
    assert ready.http_status == 200
    assert len(server.requests) > 1
