"""Verdicts: each result of libcurl, HTTP, FTP and the disk has one meaning, and no message has a secret."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pycurl
import pytest

from autodl_lib.contract.failures import RETRYABLE, FailureCode
from autodl_lib.contract.transfer_options import NO_OPTIONS, IpVersion, TransferOptions
from autodl_lib.worker.network import connect_words
from autodl_lib.worker.network.verdicts import CurlResult, curl_verdict, http_verdict, os_verdict

URL = "http://alice:hunter2@example.org:8080/f"


def result(code: int, message: str = "", os_errno: int = 0, status: int | None = None) -> CurlResult:
    """Make libcurl's result."""
    return CurlResult(code=code, message=message, os_errno=os_errno, status=status)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (pycurl.E_COULDNT_RESOLVE_HOST, FailureCode.NAME_RESOLUTION),
        (pycurl.E_COULDNT_CONNECT, FailureCode.CONNECT),
        (pycurl.E_OPERATION_TIMEDOUT, FailureCode.TIMEOUT),
        (pycurl.E_PARTIAL_FILE, FailureCode.TRUNCATED),
        (pycurl.E_TOO_MANY_REDIRECTS, FailureCode.REDIRECT),
        (pycurl.E_PEER_FAILED_VERIFICATION, FailureCode.TLS),
        (pycurl.E_SSL_CONNECT_ERROR, FailureCode.TLS),
        (pycurl.E_GOT_NOTHING, FailureCode.NETWORK),
        (pycurl.E_RECV_ERROR, FailureCode.NETWORK),
        (pycurl.E_LOGIN_DENIED, FailureCode.AUTHENTICATION),
        (pycurl.E_REMOTE_FILE_NOT_FOUND, FailureCode.REMOTE_MISSING),
        (pycurl.E_WRITE_ERROR, FailureCode.PROTOCOL),
        (100, FailureCode.PROTOCOL),
        (pycurl.E_URL_MALFORMAT, FailureCode.BAD_URL),
        (pycurl.E_UNSUPPORTED_PROTOCOL, FailureCode.BAD_URL),
        (9999, FailureCode.NETWORK),
    ],
)
def test_libcurls_results_have_one_meaning(code: int, expected: FailureCode) -> None:
    assert curl_verdict(result(code), URL).code is expected


@pytest.mark.parametrize("code", range(1, 101))
def test_no_message_has_a_secret_and_all_are_sentences(code: int) -> None:
    options = TransferOptions(proxy="http://bob:hunter2@proxy:1", username="bob", password="hunter2")
    message = curl_verdict(result(code, f"bad http://bob:hunter2@proxy/ in {URL}\n\x1b", 111), URL, options).message
    assert "hunter2" not in message
    assert "bob" not in message
    assert "{" not in message
    assert message.isprintable()
    assert message[0].islower()


def test_a_reset_during_the_handshake_may_pass() -> None:
    assert curl_verdict(result(35, os_errno=errno.ECONNRESET), URL).code in RETRYABLE


@pytest.mark.parametrize(
    ("code", "reply", "expected"),
    [
        (78, 550, FailureCode.REMOTE_MISSING),
        (9, 550, FailureCode.REMOTE_MISSING),
        (67, 530, FailureCode.AUTHENTICATION),
        (67, 421, FailureCode.SERVER_BUSY),
        (19, 450, FailureCode.SERVER_BUSY),
        (8, 421, FailureCode.SERVER_BUSY),
        (28, 421, FailureCode.SERVER_BUSY),
        (28, 220, FailureCode.TIMEOUT),
        (7, 421, FailureCode.CONNECT),
    ],
)
def test_ftp_replies_say_more_than_libcurl(code: int, reply: int, expected: FailureCode) -> None:
    assert curl_verdict(result(code, status=reply), "ftp://h/f").code is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *[(status, FailureCode.SERVER_BUSY) for status in (408, 425, 429, 500, 502, 503, 504, 507, 511, 530, 599)],
        *[(status, FailureCode.HTTP_ERROR) for status in (400, 405, 416, 451, 501, 505, 506, 510, 600, 201, 0)],
        *[(status, FailureCode.REMOTE_MISSING) for status in (404, 410)],
        *[(status, FailureCode.AUTHENTICATION) for status in (401, 403, 407)],
        *[(status, FailureCode.REDIRECT) for status in (300, 301, 304, 399)],
    ],
)
def test_statuses_have_one_meaning(status: int, expected: FailureCode) -> None:
    verdict = http_verdict(status, "", 5.0)
    assert verdict.code is expected
    assert verdict.retry_after_s == (5.0 if expected is FailureCode.SERVER_BUSY else None)


def test_a_status_without_words_gets_the_usual_ones() -> None:
    assert http_verdict(404, "", None).message == "the server answered 404 Not Found"
    assert http_verdict(404, "Gone fishing", None).message == "the server answered 404 Gone fishing"
    assert http_verdict(599, "", None).message == "the server answered 599"


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, FailureCode.DISK_FULL),
        (errno.EDQUOT, FailureCode.DISK_FULL),
        (errno.EACCES, FailureCode.PERMISSION),
        (errno.EROFS, FailureCode.PERMISSION),
        (errno.EIO, FailureCode.DISK),
    ],
)
def test_the_disks_errors_have_one_meaning(number: int, expected: FailureCode) -> None:
    assert os_verdict(OSError(number, "x"), "save").code is expected


# --- words of libcurl that say more than its code; as its versions 7.88 (GnuTLS) and 8.23 (OpenSSL) put them ---

DOWN = "Failed to connect to {place} after 0 ms: Could not connect to server"


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Say whether this machine has a default route."""

    def have(is_there: bool) -> None:
        monkeypatch.setattr(connect_words, "has_default_route", lambda: is_there)

    have(True)
    return have


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH])
@pytest.mark.parametrize("place", ["example.org port 8080", "example.org:8080", "2001:db8::7:443"])
def test_without_a_way_out_an_unreachable_host_is_not_the_tasks_fault(
    routes: Callable[[bool], None], number: int, place: str
) -> None:
    unreached = result(7, DOWN.format(place=place), number)
    assert curl_verdict(unreached, URL).code is FailureCode.CONNECT
    routes(False)
    assert curl_verdict(unreached, URL).code is FailureCode.NETWORK_DOWN


def test_without_a_way_out_names_can_not_be_resolved(routes: Callable[[bool], None]) -> None:
    for code, words in ((6, "Could not resolve host: example.org"), (5, "Could not resolve proxy: p.example")):
        routes(True)
        assert curl_verdict(result(code, words), URL).code is FailureCode.NAME_RESOLUTION
        routes(False)
        assert curl_verdict(result(code, words), URL).code is FailureCode.NETWORK_DOWN


def test_this_machine_itself_needs_no_way_out(routes: Callable[[bool], None]) -> None:
    routes(False)
    for place in ("127.0.0.1 port 80", "localhost:80", "::1 port 80", "[::1]:80"):
        unreached = result(7, DOWN.format(place=place), errno.ENETUNREACH)
        assert curl_verdict(unreached, "http://127.0.0.1/f").code is FailureCode.CONNECT
    assert curl_verdict(result(6, "Could not resolve host: localhost"), URL).code is FailureCode.NAME_RESOLUTION
    assert curl_verdict(result(7, DOWN.format(place="example.org:80"), errno.ECONNREFUSED), URL).code in RETRYABLE


@pytest.mark.parametrize(
    ("words", "options", "expected"),
    [
        ("mirror.example port 81 after", NO_OPTIONS, "could not connect to mirror.example port 81: Connection refused"),
        (
            "10.0.0.1 port 3128 after",
            TransferOptions(proxy="http://u:hunter2@10.0.0.1:3128"),
            "could not connect to the proxy 10.0.0.1 port 3128: Connection refused",
        ),
        (
            "10.0.0.1:3128 over proxy 10.0.0.1 after",
            NO_OPTIONS,
            "could not connect to the proxy 10.0.0.1 port 3128: Connection refused",
        ),
    ],
)
def test_it_is_said_who_could_not_be_reached(words: str, options: TransferOptions, expected: str) -> None:
    refused = result(7, f"Failed to connect to {words} 0 ms: Couldn't connect to server", errno.ECONNREFUSED)
    assert curl_verdict(refused, URL, options).message == expected


def test_the_kind_of_address_that_was_asked_for_is_said(routes: Callable[[bool], None]) -> None:
    unresolved = result(6, "Could not resolve host: example.org")
    message = curl_verdict(unresolved, URL, TransferOptions(ip_version=IpVersion.IPV6)).message
    assert message == "could not resolve the host name example.org to an IPv6 address"


@pytest.mark.parametrize("code", [7, 56])
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (407, FailureCode.AUTHENTICATION),
        (403, FailureCode.AUTHENTICATION),
        (503, FailureCode.CONNECT),
        (504, FailureCode.CONNECT),
        (429, FailureCode.CONNECT),
        (400, FailureCode.PROTOCOL),
    ],
)
def test_a_proxys_refusals_are_told_apart(code: int, status: int, expected: FailureCode) -> None:
    verdict = curl_verdict(result(code, f"CONNECT tunnel failed, response {status}"), URL)
    assert verdict.code is expected
    assert str(status) in verdict.message
    assert "the proxy" in verdict.message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("User was rejected by the SOCKS5 server (1 1).", FailureCode.AUTHENTICATION),
        ("No authentication method was acceptable.", FailureCode.AUTHENTICATION),
        ("Can't complete SOCKS5 connection to 127.0.0.1. (2)", FailureCode.CONNECT),
        ("[SOCKS] cannot complete SOCKS4 connection to 0.0.0.0:0. (91), request rejected.", FailureCode.CONNECT),
    ],
)
def test_a_socks_proxys_refusals_are_told_apart(words: str, expected: FailureCode) -> None:
    assert curl_verdict(result(97, words), URL).code is expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("SSL certificate OpenSSL verify result: certificate has expired (10)", "has expired"),
        ("SSL certificate problem: certificate is not yet valid", "is not valid yet"),
        ("SSL certificate OpenSSL verify result: self-signed certificate (18)", "is self-signed"),
        ("SSL certificate problem: self-signed certificate in certificate chain", "is from an authority"),
        ("SSL certificate problem: unable to get local issuer certificate", "is from an authority"),
        ("SSL: no alternative certificate subject name matches target IPv4 address '1.2.3.4'", "is for another host"),
        ("SSL: certificate subject name () does not match target host name '1.2.3.4'", "is for another host"),
        (
            "server certificate verification failed. CAfile: /x CRLfile: none",
            "is not trusted here, or its time is over",
        ),
    ],
)
def test_what_is_wrong_with_a_certificate_is_said(words: str, expected: str) -> None:
    verdict = curl_verdict(result(60, words), URL)
    assert verdict.code is FailureCode.TLS
    assert verdict.message.startswith(f"the certificate of example.org {expected}")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (43, "unable to set private key file: '/k' type PEM"),
        (35, "error reading X.509 key or certificate file"),
        (58, "could not load PEM client certificate from /c, OpenSSL error"),
    ],
)
def test_a_client_certificate_that_can_not_be_used_is_said(code: int, words: str) -> None:
    verdict = curl_verdict(result(code, words), URL)
    assert verdict.code is FailureCode.TLS
    assert "client certificate" in verdict.message


@pytest.mark.parametrize(
    "words",
    [
        "Recv failure: Connection reset by peer",
        "TLS connect error: error:00000000:lib(0)::reason(0) unexpected eof while reading",
        "OpenSSL SSL_connect: SSL_ERROR_SYSCALL in connection to h:443",
        "gnutls_handshake() failed: The TLS connection was non-properly terminated.",
        "gnutls_handshake() failed: Error in the pull function.",
    ],
)
def test_a_handshake_that_breaks_off_may_be_tried_again(words: str) -> None:
    assert curl_verdict(result(35, words), URL).code is FailureCode.NETWORK


def test_a_handshake_that_fails_is_final() -> None:
    assert curl_verdict(result(35, "TLS connect error: SSL routines::wrong version number"), URL).code not in RETRYABLE


def test_a_head_without_an_end_is_no_connection_that_broke() -> None:
    verdict = curl_verdict(result(56, "Too large response headers: 524288 > 307200"), "ftp://h/f")
    assert verdict.code is FailureCode.PROTOCOL


def test_an_ftp_data_connection_that_does_not_open_may_do_so_later() -> None:
    assert curl_verdict(result(13, status=227), "ftp://h/f").code in RETRYABLE
    assert curl_verdict(result(13, status=500), "ftp://h/f").code is FailureCode.PROTOCOL


def test_a_missing_interface_may_come_back() -> None:
    assert curl_verdict(result(45, "Couldn't bind to interface 'wg0'"), URL).code in RETRYABLE


def test_a_proxy_that_wants_a_login_is_not_taken_for_the_server() -> None:
    assert http_verdict(407, "Proxy Authentication Required", None).message.startswith("the proxy wants")


def test_an_address_that_was_tried_in_vain_before_is_not_why_a_connection_broke() -> None:
    broke = curl_verdict(result(pycurl.E_RECV_ERROR, "chunk hex-length char not a hex digit", errno.ECONNREFUSED), URL)
    assert broke.message == "the connection to example.org broke: chunk hex-length char not a hex digit"
    lost = curl_verdict(result(pycurl.E_RECV_ERROR, "Recv failure: Connection reset by peer", errno.ECONNRESET), URL)
    assert lost.message == "the connection to example.org broke: Connection reset by peer"
