"""By which addresses and interfaces a task leaves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET6, IPPROTO_IPV6, IPV6_V6ONLY

import pytest
from outcomes import arrival, failure
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import IpVersion


class TellPeer(BaseHTTPRequestHandler):
    """Answers with the address that the client has."""

    def do_GET(self) -> None:
        """Answer."""
        body = self.client_address[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Be quiet."""


class BothFamilies(ThreadingHTTPServer):
    """Listens on every address of this machine, of both families."""

    address_family = AF_INET6
    daemon_threads = True

    def server_bind(self) -> None:
        """Take IPv4 as well."""
        self.socket.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 0)
        super().server_bind()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server that answers with the client's address."""
    with BothFamilies(("::", 0), TellPeer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("asked", "address"), [(IpVersion.IPV4, b"::ffff:127.0.0.1"), (IpVersion.IPV6, b"::1")])
def test_addresses_of_one_kind_only_are_used_when_asked(
    port: int, worker: WorkerHarness, folder: Path, asked: IpVersion, address: bytes
) -> None:
    assert arrival(worker, f"http://localhost:{port}/f", folder, ip_version=asked) == address


@pytest.mark.parametrize(("asked", "host"), [(IpVersion.IPV4, "[::1]"), (IpVersion.IPV6, "127.0.0.1")])
def test_an_address_of_the_other_kind_is_not_used(
    port: int, worker: WorkerHarness, folder: Path, asked: IpVersion, host: str
) -> None:
    found = failure(worker, f"http://{host}:{port}/f", folder, ip_version=asked)
    assert found.code is FailureCode.CONNECT


def test_an_address_in_brackets_is_reached(port: int, worker: WorkerHarness, folder: Path) -> None:
    assert arrival(worker, f"http://[::1]:{port}/f", folder) == b"::1"


def test_the_local_address_can_be_chosen(port: int, worker: WorkerHarness, folder: Path) -> None:
    url = f"http://127.0.0.1:{port}/f"
    assert arrival(worker, url, folder, interface="127.0.0.2") == b"::ffff:127.0.0.2"
    assert arrival(worker, url, folder) == b"::ffff:127.0.0.1"


def test_the_interface_can_be_chosen(port: int, worker: WorkerHarness, folder: Path) -> None:
    assert arrival(worker, f"http://127.0.0.1:{port}/f", folder, interface="lo") == b"::ffff:127.0.0.1"


@pytest.mark.parametrize("interface", ["nosuch0", "192.0.2.77"])
def test_an_interface_that_is_not_there_is_said(port: int, worker: WorkerHarness, folder: Path, interface: str) -> None:
    failed = failure(worker, f"http://127.0.0.1:{port}/f", folder, interface=interface)
    assert failed.code is FailureCode.CONNECT
    assert "interface or local address" in failed.message


def test_a_name_is_never_taken_for_an_interface(port: int, worker: WorkerHarness, folder: Path) -> None:
    failed = failure(worker, f"http://127.0.0.1:{port}/f", folder, interface="localhost")
    assert failed.code is FailureCode.CONNECT
