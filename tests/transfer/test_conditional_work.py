"""Only what is newer, with the server's time, or going on from what another program left."""

from __future__ import annotations

import email.utils
import os
from dataclasses import replace
from pathlib import Path

import pytest
from behaviour import BIG, BIG_BYTES, DATE, GOOD, LOGIN, OTHER_BIG, OTHER_DATE, OTHER_SMALL, SMALL, TINY
from support.misbehaving_cases import Case
from support.misbehaving_server import MisbehavingServer
from worker_harness import WorkerHarness

from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.contract.worker_messages import Current, Failed, Finished, Report

DATE_S = email.utils.parsedate_to_datetime(DATE).timestamp()
OTHER_DATE_S = email.utils.parsedate_to_datetime(OTHER_DATE).timestamp()
IF_NEWER = TransferOptions(if_newer=True)
OVERLAP_BYTES = 1024 * 1024
FAST = replace(GOOD, rate_bps=None)
NOT_MODIFIED = Case(status="304 Not Modified", lengths=(), last_modified=DATE)


def end_of(worker: WorkerHarness, url: str, folder: Path, options: TransferOptions) -> Report:
    """Download with these options; `Current` is an end too."""
    lease = worker.assign(url, folder, options=options).lease
    return worker.await_next(lambda report: report.lease == lease and isinstance(report, Finished | Failed | Current))


def have(folder: Path, body: bytes, at_s: float) -> Path:
    """Put the file there, as of this time."""
    path = folder / "f"
    path.write_bytes(body)
    os.utime(path, (at_s, at_s))
    return path


# --- only what is newer ---


def test_what_is_current_is_left_alone(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    path = have(folder, OTHER_SMALL, DATE_S)
    before = path.stat()
    report = end_of(worker, server.serve("/f", NOT_MODIFIED), folder, IF_NEWER)
    assert isinstance(report, Current)
    assert (report.dest, report.size_bytes, report.http_status) == (str(path), len(OTHER_SMALL), 304)
    assert server.requests[0].headers["if-modified-since"] == DATE
    assert (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) == (
        OTHER_SMALL,
        before.st_mtime_ns,
        before.st_ino,
    )
    assert [entry.name for entry in folder.iterdir()] == ["f"]


def test_what_is_newer_replaces_the_file(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    path = have(folder, OTHER_SMALL, DATE_S)
    report = end_of(worker, server.serve("/f", replace(TINY, last_modified=OTHER_DATE)), folder, IF_NEWER)
    assert isinstance(report, Finished)
    assert path.read_bytes() == SMALL
    assert [entry.name for entry in folder.iterdir()] == ["f"]


def test_a_server_that_sends_what_is_not_newer_is_not_heeded(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    path = have(folder, OTHER_SMALL, OTHER_DATE_S)
    assert isinstance(end_of(worker, server.serve("/f", TINY), folder, IF_NEWER), Current)
    assert path.read_bytes() == OTHER_SMALL


def test_where_there_is_no_file_it_is_fetched(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    assert isinstance(end_of(worker, server.serve("/f", TINY), folder, IF_NEWER), Finished)
    assert (folder / "f").read_bytes() == SMALL
    assert "if-modified-since" not in server.requests[0].headers


def test_what_another_task_has_kept_of_the_file_does_not_give_it_another_name(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    url = server.serve("/f", replace(GOOD, cut_after=700_000), TINY, NOT_MODIFIED)
    failed = end_of(worker, url, folder, IF_NEWER)
    assert isinstance(failed, Failed)
    assert failed.part is not None
    assert isinstance(end_of(worker, url, folder, IF_NEWER), Finished)
    assert (folder / "f").read_bytes() == SMALL
    assert isinstance(end_of(worker, url, folder, IF_NEWER), Current)


def test_an_error_leaves_the_old_file(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    path = have(folder, OTHER_SMALL, DATE_S)
    assert isinstance(end_of(worker, server.serve("/f", replace(LOGIN, status="404 Gone")), folder, IF_NEWER), Failed)
    assert path.read_bytes() == OTHER_SMALL
    assert [entry.name for entry in folder.iterdir()] == ["f"]


def test_a_newer_file_that_ends_early_leaves_the_old_one(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    path = have(folder, OTHER_SMALL, DATE_S)
    case = Case(body=SMALL, last_modified=OTHER_DATE, ranges=False, cut_after=1000)
    assert isinstance(end_of(worker, server.serve("/f", case), folder, IF_NEWER), Failed)
    assert path.read_bytes() == OTHER_SMALL


# --- the server's time ---


def test_the_file_gets_the_servers_time_where_that_is_asked_for(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    url = server.serve("/f", TINY)
    assert isinstance(end_of(worker, url, folder, TransferOptions(remote_time=True)), Finished)
    assert (folder / "f").stat().st_mtime == DATE_S


def test_the_file_has_its_own_time_otherwise(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    assert isinstance(end_of(worker, server.serve("/f", TINY), folder, TransferOptions()), Finished)
    assert (folder / "f").stat().st_mtime > OTHER_DATE_S


@pytest.mark.parametrize("date", [None, "yesterday", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT"])
def test_a_time_that_makes_no_sense_does_no_harm(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, date: str | None
) -> None:
    url = server.serve("/f", replace(TINY, last_modified=date))
    assert isinstance(end_of(worker, url, folder, TransferOptions(remote_time=True)), Finished)
    assert (folder / "f").read_bytes() == SMALL


def test_a_file_of_several_connections_gets_the_servers_time(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    options = TransferOptions(remote_time=True)
    assign = worker.assign(server.serve("/f", GOOD), folder, connections=(4,), options=options)
    assert isinstance(worker.await_end(assign.lease), Finished)
    assert (folder / "f").stat().st_mtime == DATE_S


# --- what another program left ---


def left(tmp_path: Path, body: bytes) -> TransferOptions:
    """Be a program that left a part of the file."""
    path = tmp_path / "left.part"
    path.write_bytes(body)
    return TransferOptions(continue_from=str(path))


def firsts(server: MisbehavingServer) -> list[int]:
    """Return where each request begins."""
    return [(seen.wanted(BIG_BYTES) or [(0, 0)])[0][0] for seen in server.requests]


def test_a_good_part_is_gone_on_from(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path
) -> None:
    options = left(tmp_path, BIG[: BIG_BYTES - 1_000_000])
    assert isinstance(end_of(worker, server.serve("/f", FAST), folder, options), Finished)
    assert (folder / "f").read_bytes() == BIG
    assert min(firsts(server)) >= BIG_BYTES - 1_000_000 - OVERLAP_BYTES
    assert [entry.name for entry in folder.iterdir()] == ["f"]


@pytest.mark.parametrize(
    "part",
    [
        OTHER_BIG[: BIG_BYTES - 1_000_000],
        BIG + b"more",
        OTHER_BIG + b"more",
        b"",
        BIG[: BIG_BYTES - 2_000_000] + bytes(1_000_000),
    ],
    ids=["another file", "longer", "another and longer", "empty", "zeros at its end"],
)
def test_a_part_that_is_not_of_this_file_is_not_used(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path, part: bytes
) -> None:
    assert isinstance(end_of(worker, server.serve("/f", FAST), folder, left(tmp_path, part)), Finished)
    assert (folder / "f").read_bytes() == BIG


def test_a_part_is_of_no_use_without_ranges(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path
) -> None:
    url = server.serve("/f", replace(FAST, ranges=False))
    assert isinstance(end_of(worker, url, folder, left(tmp_path, BIG[:2_000_000])), Finished)
    assert (folder / "f").read_bytes() == BIG


def test_a_part_that_is_complete_needs_little(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path
) -> None:
    assert isinstance(end_of(worker, server.serve("/f", FAST), folder, left(tmp_path, BIG)), Finished)
    assert (folder / "f").read_bytes() == BIG


def test_a_part_that_is_not_there_is_a_clear_failure_or_is_done_without(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path
) -> None:
    options = TransferOptions(continue_from=str(tmp_path / "nothing"))
    report = end_of(worker, server.serve("/f", FAST), folder, options)
    if isinstance(report, Finished):
        assert (folder / "f").read_bytes() == BIG
    else:
        assert list(folder.iterdir()) == []


def test_a_part_that_is_no_file_is_not_read(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    report = end_of(worker, server.serve("/f", FAST), folder, TransferOptions(continue_from=str(fifo)))
    assert isinstance(report, Failed) or (folder / "f").read_bytes() == BIG
