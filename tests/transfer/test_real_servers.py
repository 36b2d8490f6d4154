"""The usual ways of a download with each real HTTP server: nginx, with TLS too, Apache httpd and lighttpd."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from outcomes import arrival, failure
from support.apache import Apache
from support.certificates import Certificates
from support.lighttpd import Lighttpd
from support.server_process import public_folder, running
from support.tls_nginx import TlsNginx
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.contract.worker_messages import Finished, Halt, Halted, Note, Ready, Started

BODY = os.urandom(3_000_000)


@pytest.fixture(scope="module")
def tls_nginx() -> Iterator[TlsNginx]:
    with public_folder() as folder, running(lambda own: TlsNginx(own, Certificates(folder))) as server:
        yield server


@pytest.fixture(scope="module")
def apache() -> Iterator[Apache]:
    with running(Apache) as server:
        yield server


@pytest.fixture(scope="module")
def lighttpd() -> Iterator[Lighttpd]:
    with running(Lighttpd) as server:
        yield server


@pytest.fixture(params=["tls_nginx", "apache", "lighttpd"])
def web(request: pytest.FixtureRequest) -> TlsNginx | Apache | Lighttpd:
    """Each server in turn."""
    server: TlsNginx | Apache | Lighttpd = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def options(web: TlsNginx | Apache | Lighttpd) -> dict[str, str]:
    """What it takes to trust the server."""
    return {"ca_file": web.ca_file} if isinstance(web, TlsNginx) else {}


@pytest.mark.parametrize("size", [0, 1, 10_000, 3_000_000])
def test_a_file_arrives(
    web: TlsNginx | Apache | Lighttpd, options: dict[str, str], worker: WorkerHarness, folder: Path, size: int
) -> None:
    (web.files / "f").write_bytes(BODY[:size])
    assert arrival(worker, f"{web.url}/f", folder, **options) == BODY[:size]


def test_names_that_need_escapes_arrive(
    web: TlsNginx | Apache | Lighttpd, options: dict[str, str], worker: WorkerHarness, folder: Path
) -> None:
    (web.files / "ein Wörtchen+&.bin").write_bytes(b"x")
    url = f"{web.url}/ein%20W%C3%B6rtchen+&.bin"
    report = worker.await_end(worker.assign(url, folder, options=TransferOptions(**options)).lease)
    assert isinstance(report, Finished)
    assert Path(report.dest).name == "ein Wörtchen+&.bin"


def test_a_file_that_is_missing_says_so(
    web: TlsNginx | Apache | Lighttpd, options: dict[str, str], worker: WorkerHarness, folder: Path
) -> None:
    failed = failure(worker, f"{web.url}/missing", folder, **options)
    assert failed.code is FailureCode.REMOTE_MISSING
    assert failed.http_status == 404


def paused(url: str, options: TransferOptions, worker: WorkerHarness, folder: Path) -> Halted:
    """Pause a slow download in the middle; its tag is `t`."""
    assign = worker.assign(url, folder, options=options, limit_rate_bps=200_000, tag="t")
    worker.await_report(Started, assign.lease, such=lambda report: report.part is not None)
    worker.order(Halt(lease=assign.lease, discard=False))
    halted = worker.await_end(assign.lease)
    assert isinstance(halted, Halted)
    assert 0 < halted.bytes_done < len(BODY)
    return halted


def test_a_paused_file_goes_on_where_it_was(
    web: TlsNginx | Apache | Lighttpd, options: dict[str, str], worker: WorkerHarness, folder: Path
) -> None:
    (web.files / "g").write_bytes(BODY)
    # The date of a file that was changed in the very second of the answer proves nothing.
    os.utime(web.files / "g", (1_000_000_000, 1_000_000_000))
    asked = TransferOptions(**options)
    halted = paused(f"{web.url}/g", asked, worker, folder)
    again = worker.assign(f"{web.url}/g", folder, options=asked, tag="t", name="g", part=halted.part)
    assert isinstance(worker.await_end(again.lease), Finished)
    assert (folder / "g").read_bytes() == BODY
    [ready] = worker.reports_of(again.lease, Ready)
    assert ready.bytes_received == len(BODY) - halted.bytes_done
    assert ready.http_status == 206


def test_a_file_that_was_replaced_is_fetched_anew(
    web: TlsNginx | Apache | Lighttpd, options: dict[str, str], worker: WorkerHarness, folder: Path
) -> None:
    (web.files / "h").write_bytes(BODY)
    os.utime(web.files / "h", (1_000_000_000, 1_000_000_000))
    asked = TransferOptions(**options)
    halted = paused(f"{web.url}/h", asked, worker, folder)
    other = BODY[::-1]
    (web.files / "h.new").write_bytes(other)
    (web.files / "h.new").rename(web.files / "h")
    again = worker.assign(f"{web.url}/h", folder, options=asked, tag="t", name="h", part=halted.part)
    assert isinstance(worker.await_end(again.lease), Finished)
    assert (folder / "h").read_bytes() == other
    assert [note.text for note in worker.reports_of(again.lease, Note)] == ["the remote file changed; starting over"]
