"""Mirrors that speak FTP: a size alone makes no two sources' bytes one file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from behaviour import BIG, GOOD
from support.ftp import Vsftpd
from support.misbehaving_server import MisbehavingServer
from support.server_process import running
from worker_harness import WorkerHarness

from autodl_lib.contract.transfer_options import TransferOptions

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
