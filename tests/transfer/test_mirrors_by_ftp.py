"""Mirrors that speak FTP: a size alone makes no two sources' bytes one file, size and time do."""

from __future__ import annotations

import email.utils
import os
from dataclasses import replace
from pathlib import Path

import pytest
from behaviour import BIG, DATE, GOOD
from support.ftp import Vsftpd
from support.misbehaving_server import MisbehavingServer
from support.server_process import running
from worker_harness import WorkerHarness

from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.contract.worker_messages import Finished

OTHER = bytes([byte ^ 0x55 for byte in BIG])


def test_a_file_that_came_in_part_by_http_is_never_completed_by_another_one_of_its_size(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    with running(Vsftpd) as ftp:
        (ftp.root / "f").write_bytes(OTHER)
        dies = (replace(GOOD, cut_after=1_000_000), replace(GOOD, status="503 Busy", body=b"x", ranges=False))
        options = TransferOptions(mirrors=(f"{ftp.url}/f",))
        worker.await_end(worker.assign(server.serve("/f", *dies), folder, options=options, connections=(1, 1)).lease)
    assert not (folder / "f").exists() or (folder / "f").read_bytes() in (BIG, OTHER)


@pytest.mark.parametrize(("later_s", "is_continued"), [(0, True), (1, False)])
def test_ftp_goes_on_with_what_came_by_http_where_size_and_time_are_the_same(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, later_s: int, is_continued: bool
) -> None:
    with running(Vsftpd) as ftp:
        (ftp.root / "f").write_bytes(BIG)
        changed_at = email.utils.parsedate_to_datetime(DATE).timestamp() + later_s
        os.utime(ftp.root / "f", (changed_at, changed_at))
        dies = (replace(GOOD, cut_after=1_000_000), replace(GOOD, status="503 Busy", body=b"x", ranges=False))
        options = TransferOptions(mirrors=(f"{ftp.url}/f",))
        assign = worker.assign(server.serve("/f", *dies), folder, options=options, connections=(1, 1))
        ended = worker.await_end(assign.lease)
    assert isinstance(ended, Finished) is is_continued
    assert not is_continued or (folder / "f").read_bytes() == BIG
