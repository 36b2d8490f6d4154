"""What a failed transfer means: libcurl's results, HTTP and FTP replies and OS errors, each through one table.

Runs as: the task's owner.  Talks to: nobody; see connect_words for the one look at /proc/net.
Invariants: a message is one sentence for the task's owner and never holds a secret: libcurl's own words are
used only for codes whose words are known to be harmless, and are redacted all the same.
Known limits: a TLS alert that a later try would not meet again counts as final. libcurl 7.88 at times waits in vain
for vsftpd to begin TLS on a data connection, which shows as result 13 after an answer that is no refusal.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass, replace
from http import HTTPStatus

from autodl_lib.contract.errors import BadUrl
from autodl_lib.contract.failures import RETRYABLE, FailureCode
from autodl_lib.contract.transfer_options import NO_OPTIONS, TransferOptions
from autodl_lib.contract.urls import check_url, redact_url
from autodl_lib.worker.network.connect_words import PROXY_LOGIN, FailureWords, connect_words

_MESSAGE_LENGTH = 1000
_USERINFO = re.compile(r"//[^/?#\s]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Why an attempt failed, as `Failed` reports it."""

    code: FailureCode
    message: str
    http_status: int | None = None
    retry_after_s: float | None = None
    is_of_another: bool = False
    """Whether another host than the one that was asked says so, after a redirect."""

    def may_pass(self) -> bool:
        """Tell whether another try makes sense."""
        return self.code in RETRYABLE


class TaskFailed(Exception):
    """This attempt is over; carries the verdict."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.verdict = Verdict(code=code, message=message[:_MESSAGE_LENGTH])


@dataclass(frozen=True, slots=True, kw_only=True)
class CurlResult:
    """How libcurl ended one request; `code` 0 is success, `os_errno` 0 is none."""

    code: int
    message: str
    os_errno: int
    status: int | None


_CURL: dict[int, FailureWords] = {
    1: (FailureCode.BAD_URL, "this URL's protocol can't be downloaded"),
    3: (FailureCode.BAD_URL, "the URL is malformed: {detail}"),
    4: (FailureCode.BAD_URL, "this machine's libcurl can't do what the task asks of it"),
    5: (FailureCode.NAME_RESOLUTION, "could not resolve the name of the proxy"),
    6: (FailureCode.NAME_RESOLUTION, "could not resolve the host name of {host}"),
    7: (FailureCode.CONNECT, "could not connect to {host} port {port}: {reason}"),
    8: (FailureCode.PROTOCOL, "{host} sent a reply that makes no sense: {detail}"),
    9: (FailureCode.AUTHENTICATION, "{host} denies access to this file"),
    10: (FailureCode.NETWORK, "{host} did not open the FTP data connection"),
    11: (FailureCode.AUTHENTICATION, "{host} refused the password"),
    12: (FailureCode.TIMEOUT, "{host} did not open the FTP data connection in time"),
    13: (FailureCode.PROTOCOL, "{host} does not support passive FTP"),
    14: (FailureCode.PROTOCOL, "{host} sent a passive FTP reply that makes no sense"),
    15: (FailureCode.NETWORK, "could not reach the FTP data address of {host}"),
    16: (FailureCode.NETWORK, "the HTTP/2 connection to {host} broke"),
    17: (FailureCode.PROTOCOL, "{host} refused binary mode"),
    18: (FailureCode.TRUNCATED, "{host} closed the connection before the file was complete"),
    19: (FailureCode.REMOTE_MISSING, "{host} would not send the file"),
    23: (FailureCode.PROTOCOL, "{host} sends a head or a reply that has no end"),
    27: (FailureCode.INTERNAL, "the worker is out of memory"),
    28: (FailureCode.TIMEOUT, "could not connect to {host} port {port} in time"),
    30: (FailureCode.NETWORK, "{host} did not open the FTP data connection"),
    31: (FailureCode.PROTOCOL, "{host} can't resume this file"),
    33: (FailureCode.PROTOCOL, "{host} can't resume this file"),
    35: (FailureCode.TLS, "could not agree on a secure connection with {host}: {detail}"),
    36: (FailureCode.PROTOCOL, "{host} can't resume this file"),
    43: (FailureCode.BAD_URL, "libcurl does not take what the task asks of it"),
    45: (FailureCode.CONNECT, "the network interface or local address that was asked for can't be used: {reason}"),
    47: (FailureCode.REDIRECT, "{host} redirects too often"),
    52: (FailureCode.NETWORK, "{host} closed the connection without an answer"),
    53: (FailureCode.TLS, "the TLS library's engine was not found"),
    54: (FailureCode.TLS, "the TLS library's engine can't be used"),
    55: (FailureCode.NETWORK, "the connection to {host} broke while sending: {reason}"),
    56: (FailureCode.NETWORK, "the connection to {host} broke: {reason}"),
    58: (FailureCode.TLS, "the client certificate can't be used"),
    59: (FailureCode.TLS, "no TLS cipher is shared with {host}"),
    60: (FailureCode.TLS, "the identity of {host} could not be verified: {detail}"),
    61: (FailureCode.PROTOCOL, "{host} sent an encoding that is not understood"),
    64: (FailureCode.TLS, "{host} does not offer the TLS that was asked for"),
    66: (FailureCode.TLS, "the TLS library could not be started"),
    67: (FailureCode.AUTHENTICATION, "{host} refused the user name or password"),
    77: (FailureCode.TLS, "the CA certificates can't be used"),
    78: (FailureCode.REMOTE_MISSING, "the file does not exist on {host}"),
    79: (FailureCode.NETWORK, "the SSH session with {host} failed: {detail}"),
    80: (FailureCode.NETWORK, "the TLS connection to {host} could not be closed"),
    82: (FailureCode.TLS, "the certificate revocation list can't be read"),
    83: (FailureCode.TLS, "the issuer of the certificate of {host} is not the expected one"),
    84: (FailureCode.PROTOCOL, "{host} refused an FTP command"),
    89: (FailureCode.CONNECT, "no connection to {host} is free"),
    90: (FailureCode.TLS, "the public key of {host} is not the expected one"),
    91: (FailureCode.TLS, "the certificate status of {host} is not valid"),
    92: (FailureCode.NETWORK, "the HTTP/2 stream from {host} broke"),
    95: (FailureCode.NETWORK, "the HTTP/3 connection to {host} broke"),
    96: (FailureCode.CONNECT, "could not open a QUIC connection to {host} port {port}"),
    97: (FailureCode.CONNECT, "the proxy would not connect to {host} port {port}"),
    100: (FailureCode.PROTOCOL, "{host} sends a head or a reply that has no end"),
}
"""CURLcode to failure. Source: curl.se/libcurl/c/libcurl-errors.html.

23: a callback has ended the request; where that was not for what came of a head, whoever did it knows why, and says so.
"""

_CURL_DEFAULT: FailureWords = (FailureCode.NETWORK, "the transfer from {host} failed (libcurl error {code})")

_NO_HTTP_WORDS = ("HTTP/0.9", "HTTP version", "subversion in response", "code in HTTP response")
"""What libcurl says of an answer that is no HTTP, with the code of an unsupported protocol."""

_HEAD_WITHOUT_END = "Too large response headers"
"""What libcurl says of that, with the code of a connection that broke."""

CANNOT_RESUME = frozenset({31, 33, 36})
"""CURLcodes that say the server can't continue a file where it was left."""

_AFTER_CONNECTING = frozenset({55, 56})
_OF_CONNECTING = frozenset({errno.ECONNREFUSED, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""What libcurl keeps of an address that it tried in vain before the one to which it was connected."""

_HTTP: dict[int, FailureCode] = {
    401: FailureCode.AUTHENTICATION,
    403: FailureCode.AUTHENTICATION,
    404: FailureCode.REMOTE_MISSING,
    407: FailureCode.AUTHENTICATION,
    410: FailureCode.REMOTE_MISSING,
    **dict.fromkeys((408, 425, 429, *range(500, 600)), FailureCode.SERVER_BUSY),
    # What the server can't do now, it can't do later.
    **dict.fromkeys((501, 505, 506, 510), FailureCode.HTTP_ERROR),
}
"""Source: RFC 9110, section 15: a 5xx that is not known is like 500."""

_FTP: dict[int, FailureCode] = {
    530: FailureCode.AUTHENTICATION,
    532: FailureCode.AUTHENTICATION,
    550: FailureCode.REMOTE_MISSING,
    **dict.fromkeys(range(400, 500), FailureCode.SERVER_BUSY),
}
_FTP_CLOSING = 421
"""The service is not available; libcurl takes it for a timeout, whenever it comes."""
_FTP_REPLIED = frozenset({8, 9, 10, 11, 13, 17, 19, 30, 67, 78, 84})
"""CURLcodes after which the FTP reply says more than the CURLcode."""

_OS: dict[int, FailureCode] = {
    errno.ENOSPC: FailureCode.DISK_FULL,
    errno.EDQUOT: FailureCode.DISK_FULL,
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.EINTR, errno.ENOLCK),
        FailureCode.RESOURCES,
    ),
    errno.EACCES: FailureCode.PERMISSION,
    errno.EPERM: FailureCode.PERMISSION,
    errno.EROFS: FailureCode.PERMISSION,
    errno.ENOENT: FailureCode.FOLDER,
    errno.ENOTDIR: FailureCode.FOLDER,
}


def host_and_port(url: str) -> tuple[str, str]:
    """Return the host and the port that a URL asks, for messages."""
    try:
        host, _, port = check_url(url).rpartition(":")
    except BadUrl:
        return "the server", "?"
    return host, port


def curl_verdict(result: CurlResult, url: str, options: TransferOptions = NO_OPTIONS) -> Verdict:
    """Say what libcurl's failure means for the task."""
    host, port = host_and_port(url)
    code, words = _CURL.get(result.code, _CURL_DEFAULT)
    connecting = connect_words(result.code, result.message, result.os_errno, options)
    if result.code == 1 and result.status is not None and 300 <= result.status < 400:
        code, words = FailureCode.REDIRECT, "{host} redirects to a protocol that can't be downloaded from"
    elif result.code == 1 and any(words in result.message for words in _NO_HTTP_WORDS):
        code, words = FailureCode.PROTOCOL, "{host} does not answer in HTTP"
    elif result.code == 56 and _HEAD_WITHOUT_END in result.message:
        code, words = _CURL[100]
    elif result.code == 60 and url.lower().startswith("sftp"):
        words = "the SSH host key of {host} is not the one in ~/.ssh/known_hosts, or is not there"
    elif result.code == 28 and result.status == _FTP_CLOSING and url.lower().startswith("ftp"):
        code, words = FailureCode.SERVER_BUSY, "{host} does not serve now (FTP reply {status})"
    elif connecting is not None:
        code, words = connecting
    elif result.code == 13 and result.status is not None and 200 <= result.status < 300:
        code, words = _CURL[12]
    elif result.code in _FTP_REPLIED and result.status is not None and url.lower().startswith("ftp"):
        code, words = _FTP.get(result.status, code), words + " (FTP reply {status})"
    message = words.format(
        host=host,
        port=port,
        code=result.code,
        status=result.status,
        detail=_harmless(result.message),
        reason=_reason(result),
    )
    return Verdict(code=code, message=message[:_MESSAGE_LENGTH], http_status=result.status)


def _reason(result: CurlResult) -> str:
    is_stale = result.code in _AFTER_CONNECTING and result.os_errno in _OF_CONNECTING and result.message
    return os.strerror(result.os_errno) if result.os_errno and not is_stale else _harmless(result.message)


def http_verdict(status: int, reason: str, retry_after_s: float | None) -> Verdict:
    """Say what a final HTTP status other than success means for the task."""
    code = FailureCode.REDIRECT if 300 <= status < 400 else _HTTP.get(status, FailureCode.HTTP_ERROR)
    words = f"the server answered {status} {reason or _standard_reason(status)}".rstrip()
    return Verdict(
        code=code,
        message=(f"{PROXY_LOGIN} (407)" if status == 407 else words)[:_MESSAGE_LENGTH],
        http_status=status,
        retry_after_s=retry_after_s if code is FailureCode.SERVER_BUSY else None,
    )


def os_verdict(error: OSError, what: str) -> Verdict:
    """Say what a failed system call on the destination means; `what` completes "could not ..."."""
    code = _OS.get(error.errno or 0, FailureCode.DISK)
    reason = os.strerror(error.errno) if error.errno else str(error)
    return Verdict(code=code, message=f"could not {what}: {reason}"[:_MESSAGE_LENGTH])


def with_status(verdict: Verdict, status: int | None) -> Verdict:
    """Add the response code to a verdict that has none."""
    return verdict if verdict.http_status is not None else replace(verdict, http_status=status)


def _standard_reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _harmless(message: str) -> str:
    """Return libcurl's words without user names and passwords, printable, on one line."""
    shown = _USERINFO.sub("//***@", redact_url(message))
    return "".join(c if c.isprintable() else "?" for c in shown)[:300] or "no reason given"
