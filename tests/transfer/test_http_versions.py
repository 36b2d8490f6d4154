"""Which HTTP is spoken, as a real nginx logs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from outcomes import arrival, failure, outcome
from support.caddy import Caddy
from support.certificates import Certificates
from support.misbehaving_server import Case, MisbehavingServer
from support.server_process import public_folder, running
from support.tls_nginx import TlsNginx
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import HttpVersion
from autodl_lib.contract.worker_messages import Finished

BODY = b"in frames or not" * 5000
_VERSION_HTTP3 = 1 << 25


@pytest.fixture(scope="module")
def tls() -> Iterator[TlsNginx]:
    with (
        public_folder() as folder,
        running(lambda own: TlsNginx(own, Certificates(folder))) as server,
    ):
        (server.files / "f").write_bytes(BODY)
        yield server


@pytest.fixture(scope="module")
def caddy() -> Iterator[Caddy]:
    with (
        public_folder() as folder,
        running(lambda own: Caddy(own, Certificates(folder))) as server,
    ):
        yield server


def speaks_http_3() -> bool:
    """Tell whether the worker's libcurl knows HTTP/3."""
    python = os.environ.get("AUTODL_TEST_PYTHON", sys.executable)
    shown = subprocess.run(
        [python, "-c", "import pycurl; print(pycurl.version_info()[4])"], capture_output=True, check=True
    )
    return bool(int(shown.stdout) & _VERSION_HTTP3)


@pytest.mark.parametrize(
    ("asked", "spoken"),
    [
        (HttpVersion.AUTO, "HTTP/2.0"),
        (HttpVersion.HTTP_1_1, "HTTP/1.1"),
        (HttpVersion.HTTP_2, "HTTP/2.0"),
    ],
)
def test_the_newest_http_is_spoken_that_the_task_allows(
    tls: TlsNginx, worker: WorkerHarness, folder: Path, asked: HttpVersion, spoken: str
) -> None:
    assert arrival(worker, f"{tls.url}/f?{asked}", folder, ca_file=tls.ca_file, http_version=asked) == BODY
    assert tls.fetch_of(f"f?{asked}").protocol == spoken


@pytest.mark.parametrize("asked", [HttpVersion.AUTO, HttpVersion.HTTP_1_1, HttpVersion.HTTP_2])
def test_without_tls_it_is_http_1_1(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, asked: HttpVersion
) -> None:
    url = server.serve("/f", Case(body=BODY))
    assert arrival(worker, url, folder, http_version=asked) == BODY
    assert server.requests[0].line.endswith("HTTP/1.1")
    assert "upgrade" not in server.requests[0].headers


def test_http_3_is_spoken_where_libcurl_has_it_and_else_refused_in_words(
    caddy: Caddy, worker: WorkerHarness, folder: Path
) -> None:
    (caddy.files / "f").write_bytes(BODY)
    options = {"ca_file": caddy.ca_file, "http_version": HttpVersion.HTTP_3}
    if speaks_http_3():
        assert arrival(worker, f"{caddy.url}/f", folder, **options) == BODY
        assert caddy.protocols("f") == ["HTTP/3.0"]
    else:
        failed = failure(worker, f"{caddy.url}/f", folder, **options)
        assert failed.code is FailureCode.BAD_URL
        assert "HTTP/3" in failed.message


def test_a_server_without_http_3_is_asked_in_the_newest_that_it_has(
    tls: TlsNginx, worker: WorkerHarness, folder: Path
) -> None:
    options = {"ca_file": tls.ca_file, "http_version": HttpVersion.HTTP_3}
    if speaks_http_3():
        assert isinstance(outcome(worker, f"{tls.url}/f", folder, **options), Finished)
        assert tls.fetch_of("f").protocol == "HTTP/2.0"
    else:
        assert failure(worker, f"{tls.url}/f", folder, **options).code is FailureCode.BAD_URL


@pytest.mark.parametrize("version", list(HttpVersion))
def test_a_large_file_and_one_that_goes_on_are_right_in_every_version(
    caddy: Caddy, worker: WorkerHarness, folder: Path, version: HttpVersion
) -> None:
    body = os.urandom(40_000_000)
    (caddy.files / version).write_bytes(body)
    (folder / "begun").write_bytes(body[:30_000_000])
    options = {"ca_file": caddy.ca_file, "http_version": version}
    if version is HttpVersion.HTTP_3 and not speaks_http_3():
        (folder / "begun").unlink()
        assert "HTTP/3" in failure(worker, f"{caddy.url}/{version}", folder, **options).message
        return
    assert arrival(worker, f"{caddy.url}/{version}", folder, **options) == body
    begun = str(folder / "begun")
    assert arrival(worker, f"{caddy.url}/{version}", folder, continue_from=begun, **options) == body
    spoken = {"auto": "HTTP/2.0", "1.1": "HTTP/1.1", "2": "HTTP/2.0", "3": "HTTP/3.0"}[version]
    assert set(caddy.protocols(version)) == {spoken}
