"""What follows a failure half-way: the bytes are right or the reason is, and nothing stays open."""

from __future__ import annotations

import fcntl
import hashlib
import os
import resource
from dataclasses import replace
from pathlib import Path

from behaviour import BIG, DATE, GOOD, OTHER_SMALL, SMALL, TINY
from support.misbehaving_server import MisbehavingServer
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.task import OnConflict
from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.contract.worker_messages import Failed, Finished, Note
from autodl_lib.worker.files.control_file import CONTROL_BYTES, ControlRecord, encode_slot
from autodl_lib.worker.network.response import RemoteVersion

UNKNOWN = replace(TINY, chunked=True)
SHA256 = f"sha256={hashlib.sha256(SMALL).hexdigest()}"


def test_a_file_of_unknown_size_that_breaks_off_comes_whole_from_a_mirror(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    with MisbehavingServer() as mirror:
        options = TransferOptions(mirrors=(mirror.serve("/f", UNKNOWN),))
        url = server.serve("/f", replace(UNKNOWN, cut_after=20_000))
        report = worker.await_end(worker.assign(url, folder, connections=(1, 1), options=options).lease)
    assert isinstance(report, Finished)
    assert (folder / "f").read_bytes() == SMALL


def test_a_complete_part_that_is_wrong_is_fetched_again(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    version = RemoteVersion(size=len(SMALL), etag='"v1"', last_modified=DATE)
    record = ControlRecord(tag="mine", version=version, ranges=((0, len(SMALL)),))
    (folder / ".f.autodl-part").write_bytes(OTHER_SMALL)
    (folder / ".f.autodl-ctl").write_bytes(encode_slot(record, 1).ljust(CONTROL_BYTES))
    given = {"tag": "mine", "name": "f", "part": ".f.autodl-part"}
    options = TransferOptions(checksums=(SHA256,))
    assign = worker.assign(server.serve("/f", TINY), folder, options=options, **given)
    assert isinstance(worker.await_end(assign.lease), Finished)
    assert (folder / "f").read_bytes() == SMALL
    [note, _] = worker.reports_of(assign.lease, Note)
    assert note.text.endswith("starting over with one connection")


def test_each_mirror_is_tried_alone_before_a_checksum_is_believed_wrong(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    with MisbehavingServer() as good, MisbehavingServer() as bad:
        wrong = replace(TINY, body=OTHER_SMALL)
        options = TransferOptions(checksums=(SHA256,), mirrors=(bad.serve("/f", wrong), good.serve("/f", TINY)))
        assign = worker.assign(server.serve("/f", wrong), folder, connections=(1, 1, 1), options=options)
        assert isinstance(worker.await_end(assign.lease), Finished)
        assert [len(each.requests) for each in (server, bad, good)] == [1, 1, 1]
    assert (folder / "f").read_bytes() == SMALL


def test_a_write_that_fails_under_a_rate_limit_says_why(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (300_000, 300_000))
    url = server.serve("/f", replace(GOOD, rate_bps=None))
    report = worker.await_end(worker.assign(url, folder, limit_rate_bps=3_000_000).lease)
    assert isinstance(report, Failed)
    assert (report.code, report.message) == (FailureCode.DISK, "could not write the part file: File too large")


def test_a_part_of_another_program_is_let_go_of_when_the_name_is_in_use(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_bytes(BIG[:1_000_000])
    options = TransferOptions(continue_from=str(other))
    with (folder / ".f.autodl-part").open("wb") as in_use:
        fcntl.flock(in_use, fcntl.LOCK_EX)
        url = server.serve("/f", GOOD)
        assign = worker.assign(url, folder, output="f", on_conflict=OnConflict.FAIL, options=options)
        report = worker.await_end(assign.lease)
    assert isinstance(report, Failed)
    assert report.code is FailureCode.FILE_BUSY
    descriptors = Path(f"/proc/{worker.process.pid}/fd")
    assert str(other) not in [os.readlink(each) for each in descriptors.iterdir()]
