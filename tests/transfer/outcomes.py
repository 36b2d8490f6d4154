"""Downloading one file with options, and what came of it."""

from __future__ import annotations

from pathlib import Path

from worker_harness import WorkerHarness

from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.contract.worker_messages import Failed, Finished


def outcome(worker: WorkerHarness, url: str, folder: Path, **options: object) -> Failed | Finished:
    """Download with options and return the last report."""
    report = worker.await_end(worker.assign(url, folder, options=TransferOptions(**options)).lease)
    assert isinstance(report, Failed | Finished)
    return report


def arrival(worker: WorkerHarness, url: str, folder: Path, **options: object) -> bytes:
    """Download with options and return the file's bytes; the file is then removed."""
    report = outcome(worker, url, folder, **options)
    assert isinstance(report, Finished), report
    data = Path(report.dest).read_bytes()
    Path(report.dest).unlink()
    return data


def failure(worker: WorkerHarness, url: str, folder: Path, **options: object) -> Failed:
    """Download with options in vain: nothing may be left in the folder."""
    report = outcome(worker, url, folder, **options)
    assert isinstance(report, Failed), report
    assert list(folder.iterdir()) == []
    return report
