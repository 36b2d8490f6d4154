"""Verdicts: each result of libcurl, HTTP, FTP and the disk has one meaning, and no message has a secret."""

from __future__ import annotations

import errno

import pycurl
import pytest

from autodl_lib.contract.failures import RETRYABLE, FailureCode
from autodl_lib.worker.verdicts import CurlResult, curl_verdict, http_verdict, os_verdict

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
        (pycurl.E_URL_MALFORMAT, FailureCode.BAD_URL),
        (pycurl.E_UNSUPPORTED_PROTOCOL, FailureCode.BAD_URL),
        (9999, FailureCode.NETWORK),
    ],
)
def test_libcurls_results_have_one_meaning(code: int, expected: FailureCode) -> None:
    assert curl_verdict(result(code), URL).code is expected


@pytest.mark.parametrize("code", range(1, 101))
def test_no_message_has_a_secret_and_all_are_sentences(code: int) -> None:
    message = curl_verdict(result(code, f"bad http://bob:hunter2@proxy/ in {URL}\n\x1b", 111), URL).message
    assert "hunter2" not in message
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
        (7, 421, FailureCode.CONNECT),
    ],
)
def test_ftp_replies_say_more_than_libcurl(code: int, reply: int, expected: FailureCode) -> None:
    assert curl_verdict(result(code, status=reply), "ftp://h/f").code is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *[(status, FailureCode.SERVER_BUSY) for status in (408, 425, 429, 500, 502, 503, 504, 520, 524, 529)],
        *[(status, FailureCode.HTTP_ERROR) for status in (400, 405, 416, 451, 501, 505, 530, 599, 201, 0)],
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
