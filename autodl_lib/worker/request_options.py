"""What libcurl is asked to do for one request, and what it may never do.

Runs as: the task's owner.  Talks to: nobody; sets options of an easy handle.
Invariants: only the schemes of contract.urls, and after a redirect only http and https; TLS and SSH peers are always
verified; an option that differs between requests is set for each, so a warm handle never keeps an old one.
Known limits: netrc is not read. An SSH host must be in the owner's ~/.ssh/known_hosts.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  (imported before the worker loses the right to read Python's folders)
import os
import unicodedata  # noqa: F401  (as above: urllib.parse imports it for a host name that is not ASCII)
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import pycurl

from autodl_lib import __version__
from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.worker_messages import TransferSettings
from autodl_lib.worker.verdicts import TaskFailed

BUFFER_BYTES = 512 * 1024
READS_AT_ONCE = 100
"""How often libcurl (7.88) reads in one step before it looks at the rate limit again."""
_LEAST_BUFFER_BYTES = 1024
_KEEPALIVE_S = 30

_REDIRECT_PROTOCOLS = pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS
_PROTOCOLS = _REDIRECT_PROTOCOLS | pycurl.PROTO_FTP | pycurl.PROTO_FTPS | pycurl.PROTO_SFTP

_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_HAS_IDN = bool(pycurl.version_info()[4] & pycurl.VERSION_IDN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. `resume_from` is for FTP and SFTP only; HTTP asks by header."""

    url: bytes
    headers: tuple[bytes, ...]
    resume_from: int
    limit_rate_bps: int
    settings: TransferSettings

    def has_credentials(self) -> bool:
        """Tell whether the request carries what no other host may get from a warm handle."""
        return bool(self.headers) or b"@" in self.url


def encode_url(url: str) -> bytes:
    """Return a URL as libcurl takes it; the supervisor has checked it, and libcurl does again.

    Raises: TaskFailed.
    """
    if url.isascii() or _HAS_IDN:
        return url.encode()
    try:
        return _with_ascii_host(url).encode()
    except ValueError as error:
        raise TaskFailed(FailureCode.BAD_URL, f"the URL's host name is not valid: {error}") from None


def encode_headers(headers: tuple[str, ...]) -> tuple[bytes, ...]:
    """Return header lines as libcurl takes them.

    Raises: TaskFailed for one that would be more than one line.
    """
    for header in headers:
        if any(c in header for c in "\r\n\0"):
            raise TaskFailed(FailureCode.BAD_URL, "a request header has a line break in it")
    return tuple([header.encode() for header in headers])


def new_handle() -> pycurl.Curl:
    """Return an easy handle with the options that are the same for every request."""
    easy = pycurl.Curl()
    easy.setopt(pycurl.NOSIGNAL, 1)
    easy.setopt(pycurl.PROTOCOLS, _PROTOCOLS)
    easy.setopt(pycurl.REDIR_PROTOCOLS, _REDIRECT_PROTOCOLS)
    easy.setopt(pycurl.FOLLOWLOCATION, 1)
    easy.setopt(pycurl.TCP_KEEPALIVE, 1)
    easy.setopt(pycurl.TCP_KEEPIDLE, _KEEPALIVE_S)
    easy.setopt(pycurl.TCP_KEEPINTVL, _KEEPALIVE_S)
    easy.setopt(pycurl.SSL_VERIFYPEER, 1)
    easy.setopt(pycurl.SSL_VERIFYHOST, 2)
    easy.setopt(pycurl.SSH_KNOWNHOSTS, os.path.expanduser("~/.ssh/known_hosts"))
    ca_file = _ca_file()
    if ca_file is not None:
        easy.setopt(pycurl.CAINFO, ca_file)
    ca_folder = os.environ.get("SSL_CERT_DIR")
    if ca_folder:
        easy.setopt(pycurl.CAPATH, ca_folder)
    return easy


def set_options(easy: pycurl.Curl, request: Request, before: Request | None) -> None:
    """Make a handle, which served `before`, serve `request`."""
    easy.setopt(pycurl.URL, request.url)
    if request.headers:
        easy.setopt(pycurl.HTTPHEADER, list(request.headers))
    elif before is not None and before.headers:
        easy.unsetopt(pycurl.HTTPHEADER)
    if before is None or before.resume_from != request.resume_from:
        easy.setopt(pycurl.RESUME_FROM_LARGE, request.resume_from)
    if before is None or before.limit_rate_bps != request.limit_rate_bps:
        easy.setopt(pycurl.MAX_RECV_SPEED_LARGE, request.limit_rate_bps)
        easy.setopt(pycurl.BUFFERSIZE, buffer_bytes(request.limit_rate_bps))
    if before is None or before.settings != request.settings:
        settings = request.settings
        easy.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, round(settings.connect_timeout_s * 1000)))
        easy.setopt(pycurl.MAXREDIRS, settings.max_redirects)
        easy.setopt(pycurl.USERAGENT, (settings.user_agent or f"autodl/{__version__}").encode())


def buffer_bytes(limit_rate_bps: int) -> int:
    """Return how much libcurl may read at once: less under a rate limit, or it would come in gusts."""
    if limit_rate_bps == 0:
        return BUFFER_BYTES
    return min(BUFFER_BYTES, max(_LEAST_BUFFER_BYTES, limit_rate_bps // READS_AT_ONCE))


def _with_ascii_host(url: str) -> str:
    """Return the URL with its host name in IDNA, for a libcurl that can't do that itself."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host.isascii():
        return url
    userinfo, at, _ = parts.netloc.rpartition("@")
    port = f":{parts.port}" if parts.port is not None else ""
    netloc = f"{userinfo}{at}{host.encode('idna').decode('ascii')}{port}"
    return urlunsplit(parts._replace(netloc=netloc))


def _ca_file() -> str | None:
    for variable in ("CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        named = os.environ.get(variable)
        if named:
            return named
    return next((path for path in _CA_FILES if os.access(path, os.R_OK)), None)
