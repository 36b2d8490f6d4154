"""A transfer that was interrupted goes on where it was, or starts over; two versions never mix."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.misbehaving_server import Case, MisbehavingServer
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.worker_messages import (
    Assign,
    Failed,
    Finished,
    Halt,
    Halted,
    Note,
    Retire,
    Started,
)
from autodl_lib.worker.files.control_file import decode_slots

BODY = os.urandom(3_000_000)
OTHER = os.urandom(3_000_000)
HALF = 1_700_000
ETAG = '"v1"'
DATE = "Tue, 01 Jul 2025 10:00:00 GMT"
GOOD = Case(body=BODY, etag=ETAG, last_modified=DATE)
PART = ".f.autodl-part"
CONTROL = ".f.autodl-ctl"


def begin(server: MisbehavingServer, worker: WorkerHarness, folder: Path, *cases: Case) -> Assign:
    """Start a download that holds at HALF; returns when it is visible and so far."""
    held = replace(cases[0], hold_after=HALF)
    assign = worker.assign(server.serve("/f", held, *cases[1:]), folder)
    assert server.held.acquire(timeout=30)
    worker.await_report(Started, assign.lease)
    return assign


def interrupt(server: MisbehavingServer, worker: WorkerHarness, folder: Path, *cases: Case) -> tuple[Assign, Halted]:
    """Pause a download in the middle."""
    assign = begin(server, worker, folder, *cases)
    worker.order(Halt(lease=assign.lease, discard=False))
    halted = worker.await_end(assign.lease)
    assert isinstance(halted, Halted)
    return assign, halted


def resume(worker: WorkerHarness, assign: Assign, part: str | None, **fields: Any) -> Any:
    """Assign the task again and await its end."""
    return worker.await_end(again(worker, assign, part, **fields).lease)


def again(worker: WorkerHarness, assign: Assign, part: str | None, **fields: Any) -> Assign:
    """Assign the task again."""
    return worker.assign(assign.url, assign.dir, **{"tag": assign.tag, "name": "f", "part": part, **fields})


def test_a_paused_transfer_goes_on_where_it_was(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    assign, halted = interrupt(server, worker, folder, GOOD, GOOD)
    assert halted.part == PART
    assert 0 < halted.bytes_done <= HALF
    second = again(worker, assign, halted.part)
    assert isinstance(worker.await_end(second.lease), Finished)
    assert (folder / "f").read_bytes() == BODY
    assert server.requests[1].headers["range"] == f"bytes={halted.bytes_done}-"
    assert server.requests[1].headers["if-range"] == ETAG
    assert [path.name for path in folder.iterdir()] == ["f"]
    assert worker.reports_of(second.lease, Note) == []


def test_bytes_that_are_coded_alike_go_together(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    coded = replace(GOOD, headers=("Content-Encoding: GZIP",))
    assign, halted = interrupt(server, worker, folder, coded, replace(GOOD, headers=("Content-Encoding: gzip",)))
    second = again(worker, assign, halted.part)
    assert isinstance(worker.await_end(second.lease), Finished)
    assert (folder / "f").read_bytes() == BODY
    assert worker.reports_of(second.lease, Note) == []


def test_coded_bytes_are_not_gone_on_with_by_plain_ones(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    """As nginx does it, which codes whole files and no parts; of the first, nobody knows the size."""
    dated = Case(body=BODY, last_modified=DATE, etag='W/"1"')
    coded = replace(dated, body=OTHER, headers=("Content-Encoding: gzip",), chunked=True, ranges=False)
    assign, halted = interrupt(server, worker, folder, coded, dated, coded)
    assert isinstance(resume(worker, assign, halted.part), Finished)
    assert (folder / "f").read_bytes() == OTHER


def test_a_part_of_a_file_whose_size_nobody_tells_is_not_all_of_it(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    endless = replace(GOOD, chunked=True)
    piece = replace(GOOD, range_total="*", range_length=500_000)
    assign, halted = interrupt(server, worker, folder, endless, piece, piece, replace(piece, range_length=None), GOOD)
    before = halted.bytes_done
    for _ in range(2):
        failed = resume(worker, assign, PART)
        assert (failed.code, failed.bytes_done) == (FailureCode.TRUNCATED, before + 500_000)
        before = failed.bytes_done
    assert list(folder.glob("[!.]*")) == []


def test_more_than_was_announced_is_no_file_for_the_next_attempt_either(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    """libcurl does not take this field for a length."""
    head = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length : 100000\r\n\r\n'
    long = Case(raw=head + BODY)
    url = server.serve("/f", long, long, GOOD)
    first = worker.assign(url, folder)
    for _ in range(2):
        failed = worker.await_end(first.lease)
        assert isinstance(failed, Failed)
        assert (failed.code, failed.bytes_done) == (FailureCode.REMOTE_CHANGED, 0)
        first = again(worker, first, failed.part)
    assert isinstance(worker.await_end(first.lease), Finished)
    assert (folder / "f").read_bytes() == BODY


def test_a_size_that_was_told_of_these_bytes_counts_where_it_is_not_told_again(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    head = f"HTTP/1.1 200 OK\r\nETag: {ETAG}\r\n\r\n".encode()
    assign, halted = interrupt(server, worker, folder, GOOD, Case(raw=head + BODY[:500_000]))
    failed = resume(worker, assign, halted.part)
    assert isinstance(failed, Failed)
    assert failed.code is FailureCode.TRUNCATED
    assert list(folder.glob("[!.]*")) == []


@pytest.mark.parametrize("coding", ["identity", ""])
def test_a_length_counts_where_the_coding_is_none(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, coding: str
) -> None:
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
    url = server.serve("/f", Case(raw=head + BODY[:1_000_000]), Case(raw=head + BODY))
    failed = worker.finish(worker.assign(url, folder))
    assert isinstance(failed, Failed)
    assert failed.code is FailureCode.TRUNCATED
    assert isinstance(worker.finish(worker.assign(url, folder)), Finished)
    assert (folder / "f").read_bytes() == BODY


def test_without_an_etag_the_date_ties_the_parts_together(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    dated = replace(GOOD, etag=None)
    assign, halted = interrupt(server, worker, folder, dated, dated)
    assert isinstance(resume(worker, assign, halted.part), Finished)
    assert server.requests[1].headers["if-range"] == DATE
    assert (folder / "f").read_bytes() == BODY


@pytest.mark.parametrize("weak", [None, 'W/"v1"'])
def test_without_a_validator_nothing_is_kept(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, weak: str | None
) -> None:
    plain = replace(GOOD, etag=weak, last_modified=None)
    _, halted = interrupt(server, worker, folder, plain)
    assert (halted.part, halted.bytes_done) == (None, 0)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "changed",
    [
        Case(body=OTHER, etag='"v2"', last_modified=DATE),
        Case(body=OTHER, etag='"v2"', last_modified=DATE, check_if_range=False),
        Case(body=OTHER[:HALF], etag=ETAG, last_modified=DATE),
        Case(body=OTHER[:100], etag=ETAG, last_modified=DATE),
        Case(body=OTHER, check_if_range=False),
        Case(body=OTHER + b"more", etag=ETAG, last_modified=DATE),
        Case(body=OTHER, last_modified="Wed, 02 Jul 2025 10:00:00 GMT", check_if_range=False),
        Case(body=OTHER, etag=ETAG, last_modified=DATE, headers=("Content-Encoding: gzip",)),
    ],
)
def test_a_remote_file_that_changed_is_fetched_anew(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, changed: Case
) -> None:
    assign, halted = interrupt(server, worker, folder, GOOD, changed)
    second = again(worker, assign, halted.part)
    assert isinstance(worker.await_end(second.lease), Finished)
    assert (folder / "f").read_bytes() == changed.body
    assert [note.text for note in worker.reports_of(second.lease, Note)] == ["the remote file changed; starting over"]
    assert [path.name for path in folder.iterdir()] == ["f"]


@pytest.mark.parametrize(
    "wrong",
    [
        replace(GOOD, range_shift=1),
        replace(GOOD, range_shift=-1),
        replace(GOOD, range_total="17"),
        replace(GOOD, range_total="x"),
    ],
)
def test_a_range_that_was_not_asked_for_is_not_used(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, wrong: Case
) -> None:
    assign, halted = interrupt(server, worker, folder, GOOD, wrong)
    assert isinstance(resume(worker, assign, halted.part), Finished)
    assert (folder / "f").read_bytes() == BODY
    assert len(server.requests) == 3
    assert "range" not in server.requests[2].headers


def test_a_range_with_an_unknown_total_is_used(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    assign, halted = interrupt(server, worker, folder, GOOD, replace(GOOD, range_total="*"))
    assert isinstance(resume(worker, assign, halted.part), Finished)
    assert (folder / "f").read_bytes() == BODY
    assert len(server.requests) == 2


def test_what_a_range_that_is_shorter_than_asked_for_lacks_is_asked_for_again(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    assign, halted = interrupt(server, worker, folder, GOOD, replace(GOOD, range_length=1000), GOOD)
    assert isinstance(resume(worker, assign, halted.part), Finished)
    assert (folder / "f").read_bytes() == BODY
    assert server.requests[-1].headers["range"] == f"bytes={halted.bytes_done + 1000}-{len(BODY) - 1}"


def test_a_server_without_ranges_sends_the_whole_file_again(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    assign, halted = interrupt(server, worker, folder, GOOD, replace(GOOD, ranges=False))
    second = again(worker, assign, halted.part)
    assert isinstance(worker.await_end(second.lease), Finished)
    assert (folder / "f").read_bytes() == BODY
    assert "can't resume" in worker.reports_of(second.lease, Note)[0].text


def test_a_failure_keeps_the_part_for_the_next_try(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    first = worker.assign(server.serve("/f", replace(GOOD, cut_after=HALF), GOOD), folder)
    failed = worker.await_end(first.lease)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.part, failed.bytes_done) == (FailureCode.TRUNCATED, PART, HALF)
    assert failed.bytes_received == HALF
    second = again(worker, first, failed.part)
    assert isinstance(worker.await_end(second.lease), Finished)
    assert (folder / "f").read_bytes() == BODY
    assert server.requests[1].headers["range"] == f"bytes={HALF}-"


def test_a_failure_before_any_answer_keeps_the_part_too(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    assign, halted = interrupt(server, worker, folder, GOOD, Case(status="503 Busy"), GOOD)
    failed = resume(worker, assign, halted.part)
    assert (failed.code, failed.part, failed.bytes_done) == (FailureCode.SERVER_BUSY, PART, halted.bytes_done)
    assert isinstance(resume(worker, assign, failed.part), Finished)
    assert (folder / "f").read_bytes() == BODY


def test_another_tasks_part_is_never_continued(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    assign, halted = interrupt(server, worker, folder, GOOD, GOOD)
    report = resume(worker, assign, halted.part, tag="another")
    assert report.dest == str(folder / "f.1")
    assert "range" not in server.requests[1].headers
    assert isinstance(resume(worker, assign, halted.part), Finished)
    assert (folder / "f").read_bytes() == BODY


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "short part"])
def test_a_part_whose_control_file_says_nothing_is_not_continued(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, damage: str
) -> None:
    assign, halted = interrupt(server, worker, folder, GOOD, GOOD)
    match damage:
        case "missing":
            (folder / CONTROL).unlink()
        case "empty":
            (folder / CONTROL).write_bytes(b"")
        case "garbage":
            (folder / CONTROL).write_bytes(os.urandom(32768))
        case "short part":
            os.truncate(folder / PART, 1000)
    assert isinstance(resume(worker, assign, halted.part), Finished)
    assert "range" not in server.requests[1].headers
    assert (folder / "f").read_bytes() == BODY
    assert [path.name for path in folder.iterdir()] == ["f"]


def test_a_part_that_is_a_symlink_is_left_alone(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    assign, halted = interrupt(server, worker, folder, GOOD, GOOD)
    (folder / PART).unlink()
    (folder / PART).symlink_to(precious)
    report = resume(worker, assign, halted.part)
    assert isinstance(report, Finished)
    assert Path(report.dest).read_bytes() == BODY
    assert precious.read_bytes() == b"precious"


@pytest.mark.parametrize("how", ["orders end", "terminated", "retired"])
def test_a_worker_that_leaves_saves_its_part(
    server: MisbehavingServer, start_worker: type[WorkerHarness], folder: Path, how: str
) -> None:
    worker = start_worker()
    assign = begin(server, worker, folder, GOOD, GOOD)
    match how:
        case "orders end":
            worker.close_orders()
        case "terminated":
            worker.process.send_signal(signal.SIGTERM)
        case "retired":
            worker.order(Retire())
            assert isinstance(worker.await_end(assign.lease), Halted)
    assert worker.wait_gone() == 0
    assert isinstance(resume(start_worker(), assign, PART), Finished)
    assert server.requests[1].headers["range"].startswith("bytes=")
    assert (folder / "f").read_bytes() == BODY


def test_signals_for_the_supervisor_do_not_end_a_worker(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    assign = begin(server, worker, folder, GOOD)
    worker.process.send_signal(signal.SIGINT)
    worker.process.send_signal(signal.SIGHUP)
    server.release()
    assert isinstance(worker.await_end(assign.lease), Finished)


def test_a_killed_worker_leaves_a_part_that_goes_on_from_its_last_checkpoint(
    server: MisbehavingServer, start_worker: type[WorkerHarness], folder: Path
) -> None:
    worker = start_worker()
    assign = begin(server, worker, folder, GOOD, GOOD)
    await_checkpoint(worker, folder)
    worker.process.kill()
    worker.wait_gone()
    assert isinstance(resume(start_worker(), assign, PART), Finished)
    assert server.requests[1].headers["range"].startswith("bytes=")
    assert (folder / "f").read_bytes() == BODY


def test_a_control_file_holds_no_url(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    interrupt(server, worker, folder, GOOD)
    content = (folder / CONTROL).read_bytes()
    assert b"127.0.0.1" not in content
    assert (folder / CONTROL).stat().st_mode & 0o777 == 0o600


def test_a_halt_with_discard_leaves_nothing(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    assign = begin(server, worker, folder, GOOD)
    worker.order(Halt(lease=assign.lease, discard=True))
    halted = worker.await_end(assign.lease)
    assert isinstance(halted, Halted)
    assert (halted.part, halted.bytes_done) == (None, 0)
    assert list(folder.iterdir()) == []


def await_checkpoint(worker: WorkerHarness, folder: Path) -> None:
    """Wait until a control file says something; reports keep coming meanwhile."""

    def written(_: object) -> bool:
        control = folder / CONTROL
        return control.exists() and decode_slots(control.read_bytes()) is not None

    worker.await_next(written)
