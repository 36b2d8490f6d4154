"""TLS with a real nginx: whom a task trusts, how it shows who it is, what it says of certificates that won't do."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from outcomes import arrival, failure
from support.certificates import Certificates
from support.server_process import public_folder, running
from support.tls_nginx import TlsNginx
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import RETRYABLE, FailureCode

BODY = b"seen by nobody on the way" * 1000


@pytest.fixture(scope="module")
def certificates() -> Iterator[Certificates]:
    with public_folder() as folder:
        yield Certificates(folder)


@pytest.fixture(scope="module")
def tls(certificates: Certificates) -> Iterator[TlsNginx]:
    with running(lambda folder: TlsNginx(folder, certificates)) as server:
        (server.files / "f").write_bytes(BODY)
        yield server


@pytest.fixture
def ca_file(certificates: Certificates) -> str:
    return str(certificates.ca_file)


def test_a_file_arrives_from_a_host_that_the_ca_file_vouches_for(
    tls: TlsNginx, worker: WorkerHarness, folder: Path, ca_file: str
) -> None:
    assert arrival(worker, f"{tls.url}/f", folder, ca_file=ca_file) == BODY


def test_an_authority_that_the_machine_does_not_know_is_not_trusted(
    tls: TlsNginx, worker: WorkerHarness, folder: Path
) -> None:
    failed = failure(worker, f"{tls.url}/f", folder)
    assert failed.code is FailureCode.TLS
    assert "certificate of 127.0.0.1" in failed.message
    assert "trusted here" in failed.message


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("expired", ("has expired", "its time is over")),
        ("wrong_host", ("is for another host",)),
        ("self_signed", ("is self-signed", "is not trusted here")),
    ],
)
def test_a_wrong_certificate_is_refused_and_said_to_be_what_it_is(
    tls: TlsNginx, worker: WorkerHarness, folder: Path, ca_file: str, kind: str, words: tuple[str, ...]
) -> None:
    failed = failure(worker, f"{tls.urls[kind]}/f", folder, ca_file=ca_file)
    assert failed.code is FailureCode.TLS
    assert any(expected in failed.message for expected in words), failed.message  # GnuTLS says less than OpenSSL


@pytest.mark.parametrize("kind", ["expired", "wrong_host", "self_signed"])
def test_any_certificate_will_do_when_that_was_asked_for(
    tls: TlsNginx, worker: WorkerHarness, folder: Path, kind: str
) -> None:
    assert arrival(worker, f"{tls.urls[kind]}/f", folder, insecure=True) == BODY


def test_the_next_task_is_careful_again(tls: TlsNginx, worker: WorkerHarness, folder: Path, ca_file: str) -> None:
    arrival(worker, f"{tls.urls['self_signed']}/f", folder, insecure=True)
    arrival(worker, f"{tls.url}/f", folder, ca_file=ca_file)
    assert failure(worker, f"{tls.urls['self_signed']}/f", folder).code is FailureCode.TLS
    assert failure(worker, f"{tls.url}/f", folder).code is FailureCode.TLS


def test_a_ca_file_replaces_what_the_machine_trusts(
    tls: TlsNginx,
    start_worker: Callable[..., WorkerHarness],
    folder: Path,
    certificates: Certificates,
    tmp_path: Path,
) -> None:
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    shutil.copy(certificates.ca_file, trusted)
    subprocess.run(["openssl", "rehash", str(trusted)], check=True)
    worker = start_worker(environment={"SSL_CERT_DIR": str(trusted)})
    assert arrival(worker, f"{tls.url}/f", folder) == BODY
    failed = failure(worker, f"{tls.url}/f", folder, ca_file=str(certificates.self_signed.cert))
    assert failed.code is FailureCode.TLS


def test_a_client_certificate_is_shown_with_its_key(
    tls: TlsNginx, worker: WorkerHarness, folder: Path, certificates: Certificates, ca_file: str
) -> None:
    url, client = f"{tls.urls['asks_client']}/f", certificates.client
    shown = {"client_cert": str(client.cert), "client_key": str(client.key)}
    assert arrival(worker, f"{url}?shown", folder, ca_file=ca_file, **shown) == BODY
    assert tls.fetch_of("f?shown").client_verified == "SUCCESS"
    assert arrival(worker, url, folder, ca_file=ca_file, client_cert=str(client.both)) == BODY


def test_a_client_certificate_of_one_task_is_not_shown_for_the_next(
    tls: TlsNginx, worker: WorkerHarness, folder: Path, certificates: Certificates, ca_file: str
) -> None:
    url = f"{tls.urls['asks_client']}/f"
    arrival(worker, url, folder, ca_file=ca_file, client_cert=str(certificates.client.both))
    assert failure(worker, url, folder, ca_file=ca_file).http_status == 400


def test_a_key_that_does_not_fit_its_certificate_is_said(
    tls: TlsNginx, worker: WorkerHarness, folder: Path, certificates: Certificates, ca_file: str
) -> None:
    shown = {"client_cert": str(certificates.client.cert), "client_key": str(certificates.good.key)}
    failed = failure(worker, f"{tls.urls['asks_client']}/f", folder, ca_file=ca_file, **shown)
    assert failed.code is FailureCode.TLS
    assert "client certificate and its private key" in failed.message


@pytest.mark.parametrize("option", ["ca_file", "client_cert", "cookie_file"])
def test_a_file_that_cannot_be_read_is_named_before_anything_is_sent(
    worker: WorkerHarness, folder: Path, option: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"https://127.0.0.1:{server.getsockname()[1]}/f"
        failed = failure(worker, url, folder, **{option: "/etc/no-such-file.pem"})
        with pytest.raises(BlockingIOError):
            server.accept()
    assert failed.code is FailureCode.PERMISSION
    assert "/etc/no-such-file.pem" in failed.message
    assert "No such file" in failed.message


def test_a_pipe_in_place_of_a_file_holds_nobody_up(worker: WorkerHarness, folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    failed = failure(worker, "https://127.0.0.1:9/f", folder, ca_file=str(tmp_path / "pipe"))
    assert "not a regular file" in failed.message


def test_a_connection_that_breaks_in_the_handshake_may_be_tried_again(worker: WorkerHarness, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reset() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        thread = threading.Thread(target=reset)
        thread.start()
        failed = failure(worker, f"https://127.0.0.1:{server.getsockname()[1]}/f", folder)
        thread.join()
    assert failed.code is FailureCode.NETWORK
    assert failed.code in RETRYABLE


def test_a_port_that_does_not_speak_tls_is_not_tried_again(worker: WorkerHarness, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(b"220 hello, this is no TLS\r\n")
                client.recv(65536)

        thread = threading.Thread(target=greet)
        thread.start()
        failed = failure(worker, f"https://127.0.0.1:{server.getsockname()[1]}/f", folder)
        thread.join()
    assert failed.code is FailureCode.TLS
