"""Redirects: to which protocols, how many, and what goes along."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from outcomes import arrival, failure
from support.certificates import Certificates
from support.ftp import PyFtp
from support.misbehaving_server import Case, MisbehavingServer
from support.server_process import public_folder, running
from support.tls_nginx import TlsNginx
from support.waiting import wait_until
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.contract.worker_messages import Finished, Halt, Halted, Started

BODY = b"0123456789abcdef" * 100_000


@pytest.fixture(scope="module")
def certificates() -> Iterator[Certificates]:
    with public_folder() as folder:
        yield Certificates(folder)


@pytest.fixture(scope="module")
def ftp(certificates: Certificates) -> Iterator[PyFtp]:
    with running(lambda folder: PyFtp(folder, certificates)) as server:
        (server.root / "f").write_bytes(BODY)
        (server.root / "empty").write_bytes(b"")
        yield server


@pytest.fixture(scope="module")
def tls(certificates: Certificates) -> Iterator[TlsNginx]:
    with running(lambda folder: TlsNginx(folder, certificates)) as server:
        (server.files / "f").write_bytes(BODY)
        yield server


def moved(server: MisbehavingServer, target: str, status: str = "302 Found") -> str:
    """Return a URL that redirects."""
    return server.serve("/moved", Case(status=status, headers=(f"Location: {target}",), body=b"moved away"))


@pytest.mark.parametrize("kind", ["plain", "implicit"])
@pytest.mark.parametrize(("name", "body"), [("f", BODY), ("empty", b"")])
def test_a_redirect_to_ftp_is_followed(
    server: MisbehavingServer, ftp: PyFtp, worker: WorkerHarness, folder: Path, kind: str, name: str, body: bytes
) -> None:
    url = moved(server, f"{getattr(ftp, kind)}/{name}")
    options = {"insecure": True} if kind == "implicit" else {}
    assert arrival(worker, url, folder, **options) == body


def test_a_redirect_to_ftp_among_small_files_is_followed_as_soon_as_those_before_it_have_come(
    server: MisbehavingServer, ftp: PyFtp, start_worker: Callable[..., WorkerHarness], folder: Path
) -> None:
    """Its body waits; nothing but the worker itself makes libcurl go on with it."""
    late = {"autodl_lib.worker.small_file:GIVEN_S": 60.0, "autodl_lib.worker.flight:QUICK_S": 60.0}
    worker = start_worker(connect_timeout_s=300.0, stall_timeout_s=300.0, constants=late)
    quick = [worker.assign(server.serve(f"/{number}", Case(body=b"x")), folder) for number in range(3)]
    for assign in quick:
        worker.await_end(assign.lease)
    held = server.serve("/held", Case(body=b"held", hold_after=1))
    urls = [held, moved(server, f"{ftp.plain}/f")]
    first, second = (worker.assignment(url, folder, connections=(2,)) for url in urls)
    worker.order(first, second)
    server.held.acquire()
    wait_until(lambda: len(server.requests) == 5 and server.answers_under_way() == 1, "the other was redirected")
    wait_until(lambda: ftp.logins(), "the other is at the FTP server")
    server.release()
    assert isinstance(worker.finish(first), Finished)
    finished = worker.finish(second)
    assert isinstance(finished, Finished)
    assert Path(finished.dest).read_bytes() == BODY


def test_a_login_does_not_follow_to_ftp(
    server: MisbehavingServer, ftp: PyFtp, worker: WorkerHarness, folder: Path
) -> None:
    assert arrival(worker, moved(server, f"{ftp.plain}/f"), folder, username="dave", password="s3 cret/@") == BODY
    assert ftp.logins()[-1] == ("anonymous", False)


def test_a_file_that_is_missing_behind_a_redirect_to_ftp_says_so(
    server: MisbehavingServer, ftp: PyFtp, worker: WorkerHarness, folder: Path
) -> None:
    assert failure(worker, moved(server, f"{ftp.plain}/missing"), folder).code is FailureCode.REMOTE_MISSING


def test_a_part_of_what_ftp_sent_is_not_continued_with_its_beginning(
    server: MisbehavingServer, ftp: PyFtp, worker: WorkerHarness, folder: Path
) -> None:
    url = moved(server, f"{ftp.plain}/f")
    assign = worker.assign(url, folder, limit_rate_bps=500_000, tag="t")
    worker.await_report(Started, assign.lease)
    worker.order(Halt(lease=assign.lease, discard=False))
    halted = worker.await_end(assign.lease)
    assert isinstance(halted, Halted)
    again = worker.assign(url, folder, tag="t", name="moved", part=halted.part)
    assert isinstance(worker.await_end(again.lease), Finished)
    assert (folder / "moved").read_bytes() == BODY


def test_a_redirect_to_tls_is_followed_and_verified(
    server: MisbehavingServer, tls: TlsNginx, worker: WorkerHarness, folder: Path
) -> None:
    url = moved(server, f"{tls.url}/f")
    assert arrival(worker, url, folder, ca_file=tls.ca_file) == BODY
    assert failure(worker, url, folder).code is FailureCode.TLS


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "sftp://127.0.0.1/x", "scp://127.0.0.1/x", "dict://127.0.0.1/x", "smb://h/x"]
)
def test_a_redirect_to_any_other_protocol_is_refused(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, target: str
) -> None:
    failed = failure(worker, moved(server, target), folder, insecure=True)
    assert failed.code is FailureCode.REDIRECT
    assert "protocol" in failed.message


def test_no_more_redirects_are_followed_than_the_settings_allow(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    server.serve("/5", Case(body=BODY))
    for number in range(5):
        server.serve(f"/{number}", Case(status="302 Found", headers=(f"Location: /{number + 1}",)))
    server.serve("/-1", Case(status="302 Found", headers=("Location: /0",)))
    base = server.serve("/x", Case()).removesuffix("/x")
    assert arrival(worker, f"{base}/0", folder) == BODY
    assert failure(worker, f"{base}/-1", folder).code is FailureCode.REDIRECT


def test_a_mirror_on_another_host_gets_no_login(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    with MisbehavingServer() as other:
        mirror = other.serve("/f", Case(body=BODY))
        url = server.serve("/f", Case(status="503 Busy"))
        secret = "Basic c2VjcmV0"
        options = TransferOptions(username="u", password="p", mirrors=(mirror,))
        headers = (f"Authorization: {secret}", "X-Plain: y")
        assign = worker.assign(url, folder, options=options, headers=headers, connections=(1, 1))
        assert isinstance(worker.await_end(assign.lease), Finished)
        assert all("authorization" not in asked.headers for asked in other.requests)
        assert other.requests[0].headers["x-plain"] == "y"
        assert server.requests[0].headers["authorization"] == secret
