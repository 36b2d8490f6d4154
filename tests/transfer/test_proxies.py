"""Proxies: a real squid, with and without a login, and a SOCKS proxy that records what it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from outcomes import arrival, failure
from support.apache import Apache
from support.certificates import Certificates
from support.ftp import PyFtp
from support.server_process import free_port, public_folder, running
from support.socks import SocksProxy
from support.squid import PASSWORD, USER, Squid
from support.tls_door import TlsDoor
from support.tls_nginx import TlsNginx
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import RETRYABLE, FailureCode

BODY = b"the long way round" * 1000


@pytest.fixture(scope="module")
def squid() -> Iterator[Squid]:
    with running(Squid) as server:
        yield server


@pytest.fixture(scope="module")
def apache() -> Iterator[Apache]:
    with running(Apache) as server:
        (server.files / "f").write_bytes(BODY)
        yield server


@pytest.fixture(scope="module")
def certificates() -> Iterator[Certificates]:
    with public_folder() as folder:
        yield Certificates(folder)


@pytest.fixture(scope="module")
def tls(certificates: Certificates) -> Iterator[TlsNginx]:
    with running(lambda folder: TlsNginx(folder, certificates)) as server:
        (server.files / "f").write_bytes(BODY)
        yield server


@pytest.fixture(scope="module")
def ftp(certificates: Certificates) -> Iterator[PyFtp]:
    with running(lambda folder: PyFtp(folder, certificates)) as server:
        (server.root / "f").write_bytes(BODY)
        yield server


@pytest.fixture
def login(squid: Squid) -> str:
    """The proxy's URL with the login that it wants."""
    return f"http://{USER}:{PASSWORD.replace(' ', '%20')}@{squid.place_with_login}"


def test_http_goes_through_the_proxy_as_http(squid: Squid, apache: Apache, worker: WorkerHarness, folder: Path) -> None:
    url = f"{apache.url}/f?as-http"
    assert arrival(worker, url, folder, proxy=f"http://{squid.place}") == BODY
    assert " GET " in squid.request(url)


def test_https_goes_through_the_proxy_in_a_tunnel(
    squid: Squid, tls: TlsNginx, worker: WorkerHarness, folder: Path, certificates: Certificates
) -> None:
    options = {"ca_file": str(certificates.ca_file), "proxy": squid.place}
    assert arrival(worker, f"{tls.url}/f", folder, **options) == BODY


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_is_spoken_to_over_tls(
    squid: Squid,
    apache: Apache,
    tls: TlsNginx,
    worker: WorkerHarness,
    folder: Path,
    certificates: Certificates,
    scheme: str,
) -> None:
    url = apache.url if scheme == "http" else tls.url
    with TlsDoor(squid.place, certificates.good) as door:
        options = {"ca_file": str(certificates.ca_file), "proxy": f"https://{door.place}"}
        assert arrival(worker, f"{url}/f", folder, **options) == BODY
        assert door.passed_bytes > len(BODY)


def test_a_proxy_that_can_not_prove_who_it_is_gets_nothing(
    squid: Squid, apache: Apache, worker: WorkerHarness, folder: Path, certificates: Certificates
) -> None:
    login = f"https://{USER}:{PASSWORD.replace(' ', '%20')}@"
    with TlsDoor(squid.place_with_login, certificates.expired) as door:
        options = {"ca_file": str(certificates.ca_file), "proxy": login + door.place}
        failed = failure(worker, f"{apache.url}/f", folder, **options)
        assert failed.code is FailureCode.TLS
        assert PASSWORD not in failed.message
        assert door.passed_bytes == 0


def test_a_proxy_is_logged_in_to(
    apache: Apache, tls: TlsNginx, worker: WorkerHarness, folder: Path, certificates: Certificates, login: str
) -> None:
    assert arrival(worker, f"{apache.url}/f", folder, proxy=login) == BODY
    assert arrival(worker, f"{tls.url}/f", folder, proxy=login, ca_file=str(certificates.ca_file)) == BODY


def test_a_proxys_login_is_not_told_to_the_server(
    apache: Apache, worker: WorkerHarness, folder: Path, login: str
) -> None:
    arrival(worker, f"{apache.url}/f?by-proxy", folder, proxy=login)
    assert [sent for _, sent, *_ in apache.requests("/f?by-proxy")] == ["-"]


def test_the_login_of_one_task_does_not_open_the_proxy_for_the_next(
    squid: Squid, tls: TlsNginx, worker: WorkerHarness, folder: Path, certificates: Certificates, login: str
) -> None:
    options = {"ca_file": str(certificates.ca_file)}
    arrival(worker, f"{tls.url}/f", folder, proxy=login, **options)
    failed = failure(worker, f"{tls.url}/f", folder, proxy=f"http://{squid.place_with_login}", **options)
    assert failed.code is FailureCode.AUTHENTICATION


@pytest.mark.parametrize("wrong", ["", "carol:s3cret@"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_another_login_is_final(
    squid: Squid, apache: Apache, tls: TlsNginx, worker: WorkerHarness, folder: Path, wrong: str, scheme: str
) -> None:
    url = apache.url if scheme == "http" else tls.url
    failed = failure(worker, f"{url}/f", folder, proxy=f"http://{wrong}{squid.place_with_login}")
    assert failed.code is FailureCode.AUTHENTICATION
    assert "the proxy wants a user name and password" in failed.message
    assert "s3cret" not in failed.message
    assert "carol" not in failed.message


def test_a_proxy_that_is_not_there_may_come_back(apache: Apache, worker: WorkerHarness, folder: Path) -> None:
    port = free_port()
    failed = failure(worker, f"{apache.url}/f", folder, proxy=f"http://carol:s3cret@127.0.0.1:{port}")
    assert failed.code is FailureCode.CONNECT
    assert f"127.0.0.1 port {port}" in failed.message
    assert "s3cret" not in failed.message


def test_what_a_proxy_forbids_is_final_and_what_it_can_not_reach_is_not(
    squid: Squid, worker: WorkerHarness, folder: Path
) -> None:
    proxy = f"http://{squid.place}"
    forbidden = failure(worker, "https://127.0.0.1:9/f", folder, proxy=proxy)
    assert forbidden.code is FailureCode.AUTHENTICATION
    assert "does not allow" in forbidden.message
    unreached = failure(worker, f"https://127.0.0.1:{free_port()}/f", folder, proxy=proxy)
    assert unreached.code in RETRYABLE
    assert "the proxy could not connect" in unreached.message


@pytest.mark.parametrize(
    "proxy", ["gopher://127.0.0.1:1", "http://", "http://a b/", "http://bob:s3cret@/", "socks://x:1"]
)
def test_a_proxy_that_makes_no_sense_is_refused_without_being_repeated(
    worker: WorkerHarness, folder: Path, proxy: str
) -> None:
    failed = failure(worker, "http://127.0.0.1:9/f", folder, proxy=proxy)
    assert failed.code is FailureCode.BAD_URL
    assert "proxy" in failed.message
    assert "s3cret" not in failed.message


def test_the_environments_proxy_counts_until_the_task_says_otherwise(
    squid: Squid, apache: Apache, start_worker: Callable[..., WorkerHarness], folder: Path
) -> None:
    worker = start_worker(environment={"http_proxy": f"http://{squid.place}", "no_proxy": ""})
    url = f"{apache.url}/f"
    arrival(worker, f"{url}?first", folder)
    arrival(worker, f"{url}?no-proxy", folder, proxy="")
    arrival(worker, f"{url}?not-for-this-host", folder, no_proxy="other.example,127.0.0.1")
    arrival(worker, f"{url}?last", folder)
    assert squid.request(f"{url}?first")
    assert squid.request(f"{url}?last")
    assert squid.requests(f"{url}?no-proxy") == squid.requests(f"{url}?not-for-this-host") == []


def test_hosts_of_no_proxy_are_reached_without_it(
    squid: Squid, apache: Apache, worker: WorkerHarness, folder: Path
) -> None:
    url, proxy = f"{apache.url}/f", f"http://{squid.place}"
    assert arrival(worker, f"{url}?around", folder, proxy=proxy, no_proxy="*") == BODY
    assert arrival(worker, f"{url}?through", folder, proxy=proxy) == BODY
    assert squid.request(f"{url}?through")
    assert squid.requests(f"{url}?around") == []


@pytest.mark.parametrize(
    ("scheme", "version", "is_name"),
    [("socks4", 4, False), ("socks4a", 4, True), ("socks5", 5, False), ("socks5h", 5, True)],
)
def test_a_socks_proxy_resolves_names_where_its_kind_says_so(
    apache: Apache, worker: WorkerHarness, folder: Path, scheme: str, version: int, is_name: bool
) -> None:
    with SocksProxy() as proxy:
        url = apache.url.replace("127.0.0.1", "localhost") + "/f"
        options = {"proxy": f"{scheme}://{proxy.place}", "ip_version": "4"}
        assert arrival(worker, url, folder, **options) == BODY
        [asked] = proxy.requests
        assert (asked.version, asked.is_name) == (version, is_name)
        assert asked.host == ("localhost" if is_name else "127.0.0.1")


def test_a_socks_proxy_is_logged_in_to(apache: Apache, worker: WorkerHarness, folder: Path) -> None:
    with SocksProxy(login=("bob", "s3 cret")) as proxy:
        url = f"{apache.url}/f"
        assert arrival(worker, url, folder, proxy=f"socks5h://bob:s3%20cret@{proxy.place}") == BODY
        for login in ("", "bob:wr0ng@"):
            failed = failure(worker, url, folder, proxy=f"socks5h://{login}{proxy.place}")
            assert failed.code is FailureCode.AUTHENTICATION
            assert "the proxy wants a user name and password" in failed.message
            assert "wr0ng" not in failed.message


@pytest.mark.parametrize("scheme", ["socks4", "socks5"])
def test_a_socks_proxy_that_does_not_get_through_may_do_so_later(
    apache: Apache, worker: WorkerHarness, folder: Path, scheme: str
) -> None:
    with SocksProxy(refuse=True) as proxy:
        failed = failure(worker, f"{apache.url}/f", folder, proxy=f"{scheme}://{proxy.place}")
    assert failed.code is FailureCode.CONNECT
    assert "the proxy" in failed.message


@pytest.mark.parametrize("kind", ["plain", "implicit"])
def test_ftp_goes_through_proxies_as_ftp(
    squid: Squid, ftp: PyFtp, worker: WorkerHarness, folder: Path, certificates: Certificates, kind: str
) -> None:
    url = f"{getattr(ftp, kind)}/f"
    options = {"ca_file": str(certificates.ca_file)} if kind == "implicit" else {}
    assert arrival(worker, url, folder, proxy=f"http://{squid.place}", **options) == BODY
    with SocksProxy() as proxy:
        assert arrival(worker, url, folder, proxy=f"socks5h://{proxy.place}", **options) == BODY
        assert len(proxy.requests) == 2


def test_a_proxys_error_page_is_never_taken_for_a_file_of_ftp(
    squid: Squid, ftp: PyFtp, worker: WorkerHarness, folder: Path
) -> None:
    failed = failure(worker, f"{ftp.plain}/missing", folder, proxy=f"http://{squid.place}")
    assert failed.code is FailureCode.REMOTE_MISSING
