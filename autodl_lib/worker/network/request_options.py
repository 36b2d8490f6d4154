"""What libcurl is asked to do for one request, and what it may never do.

Runs as: the task's owner.  Talks to: nobody itself; the files that options name are looked at, see owner_files.
Invariants: only the schemes of contract.urls, and after a redirect only http, https, ftp and ftps; files are checked
before the handle is touched; a handle that served a task with options of its own serves no other (see
`Request.has_credentials`), since pycurl can't take most options back; nor does a connection, where libcurl would not
see the difference.
Source: curl.se/libcurl/c/curl_easy_setopt.html.
Known limits: HTTP headers of the task go to the hosts of a redirect too, except Authorization and Cookie.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401  (imported before the worker loses the right to read Python's folders)
import ipaddress
import unicodedata  # noqa: F401  (as above: urllib.parse imports it for a host name that is not ASCII)
from dataclasses import dataclass
from operator import attrgetter
from urllib.parse import urlsplit, urlunsplit

import pycurl

from autodl_lib import __version__
from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import NO_OPTIONS, HttpVersion, IpVersion, TransferOptions
from autodl_lib.contract.worker_messages import TransferSettings
from autodl_lib.worker.network.login_options import login_settings, usual_ssh_login
from autodl_lib.worker.network.proxy_options import proxy_settings
from autodl_lib.worker.network.tls_options import Settings, ftp_tls_settings, ssh_settings, tls_settings, usual_trust
from autodl_lib.worker.network.verdicts import TaskFailed

BUFFER_BYTES = 512 * 1024
_LEAST_BUFFER_BYTES = 64 * 1024
_BUFFERED_S = 0.125
_KEEPALIVE_S = 30

_REDIRECT_PROTOCOLS = pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS | pycurl.PROTO_FTP | pycurl.PROTO_FTPS
_PROTOCOLS = _REDIRECT_PROTOCOLS | pycurl.PROTO_SFTP

_SUPPRESS_CONNECT_HEADERS = 265  # curl.h; pycurl does not name it
_VERSION_HTTP3 = 1 << 25  # curl.h; pycurl 7.45.2 does not name it
_FEATURES = pycurl.version_info()[4]
_HAS_IDN = bool(_FEATURES & pycurl.VERSION_IDN)
_HAS_HTTP3 = bool(_FEATURES & _VERSION_HTTP3)

_OF_LIBCURL = (
    *("username", "password", "netrc", "referer", "user_agent", "cookie_file", "proxy", "no_proxy"),
    *("ca_file", "client_cert", "client_key", "insecure", "ip_version", "interface", "http_version"),
)
"""The fields of TransferOptions that become options of a handle."""
_asked_of_libcurl = attrgetter(*_OF_LIBCURL)
_NOTHING_ASKED = _asked_of_libcurl(NO_OPTIONS)

_IP_VERSIONS = {IpVersion.IPV4: pycurl.IPRESOLVE_V4, IpVersion.IPV6: pycurl.IPRESOLVE_V6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. `resume_from` is for FTP and SFTP only; HTTP asks by header. The limit is kept by the throttle."""

    url: bytes
    headers: tuple[bytes, ...]
    resume_from: int
    limit_rate_bps: int
    settings: TransferSettings
    options: TransferOptions = NO_OPTIONS

    def has_credentials(self) -> bool:
        """Tell whether a handle that served this request may serve no other: it keeps what only this one may have."""
        is_ssh = self.url[:4].lower() == b"sftp"  # which gets a user name even where none is asked for
        return bool(self.headers) or b"@" in self.url or is_ssh or self.has_options()

    def has_options(self) -> bool:
        """Tell whether libcurl is asked for anything beyond the URL, the headers and the settings."""
        return self.options is not NO_OPTIONS and _asked_of_libcurl(self.options) != _NOTHING_ASKED


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
    if not headers:
        return ()
    for header in headers:
        if any(c in header for c in "\r\n\0"):
            raise TaskFailed(FailureCode.BAD_URL, "a request header has a line break in it")
    return tuple([header.encode() for header in headers])


def initialise_libcurl() -> None:
    """Have libcurl and its TLS library set themselves up, as they would with the first request; no request is made."""
    with contextlib.suppress(pycurl.error):
        multi, easy = pycurl.CurlMulti(), new_handle()
        multi.add_handle(easy)
        multi.remove_handle(easy)
        easy.close()
        multi.close()


def new_handle() -> pycurl.Curl:
    """Return an easy handle with the options that are the same for every request."""
    easy = pycurl.Curl()
    easy.setopt(pycurl.NOSIGNAL, 1)
    easy.setopt(pycurl.PROTOCOLS, _PROTOCOLS)
    easy.setopt(pycurl.REDIR_PROTOCOLS, _REDIRECT_PROTOCOLS)
    easy.setopt(pycurl.FOLLOWLOCATION, 1)
    easy.setopt(pycurl.UNRESTRICTED_AUTH, 0)
    easy.setopt(pycurl.FTP_SKIP_PASV_IP, 1)
    easy.setopt(_SUPPRESS_CONNECT_HEADERS, 1)
    easy.setopt(pycurl.TCP_KEEPALIVE, 1)
    easy.setopt(pycurl.TCP_KEEPIDLE, _KEEPALIVE_S)
    easy.setopt(pycurl.TCP_KEEPINTVL, _KEEPALIVE_S)
    _apply(easy, usual_trust())
    return easy


def set_options(easy: pycurl.Curl, request: Request, before: Request | None) -> None:
    """Make a handle, which served `before`, serve `request`; None: a new handle.

    Raises: TaskFailed, for options that can't be met; the handle is then as it was.
    """
    if before is not None and _is_like(request, before):
        easy.setopt(pycurl.URL, request.url)
        return
    chosen = _chosen(request, before)
    easy.setopt(pycurl.URL, request.url)
    if request.headers:
        easy.setopt(pycurl.HTTPHEADER, list(request.headers))
    elif before is not None and before.headers:
        easy.unsetopt(pycurl.HTTPHEADER)
    if before is None or before.resume_from != request.resume_from:
        easy.setopt(pycurl.RESUME_FROM_LARGE, request.resume_from)
    if before is None or before.limit_rate_bps != request.limit_rate_bps:
        easy.setopt(pycurl.BUFFERSIZE, buffer_bytes(request.limit_rate_bps))
    if before is None or before.settings != request.settings:
        settings = request.settings
        easy.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, round(settings.connect_timeout_s * 1000)))
        easy.setopt(pycurl.MAXREDIRS, settings.max_redirects)
        easy.setopt(pycurl.USERAGENT, (settings.user_agent or f"autodl/{__version__}").encode())
    _apply(easy, chosen)


def _is_like(request: Request, before: Request) -> bool:
    """Tell whether two requests differ in their URLs alone, which are of HTTP: most small files are asked for so."""
    return (
        request.settings is before.settings
        and request.options is NO_OPTIONS
        and before.options is NO_OPTIONS
        and not request.headers
        and not before.headers
        and request.resume_from == before.resume_from
        and request.limit_rate_bps == before.limit_rate_bps
        and request.url[:4].lower() == before.url[:4].lower() == b"http"
    )


def buffer_bytes(limit_rate_bps: int) -> int:
    """Return how much libcurl may read at once: under a rate limit less, since it lies in memory until its turn."""
    if limit_rate_bps == 0:
        return BUFFER_BYTES
    return min(BUFFER_BYTES, max(_LEAST_BUFFER_BYTES, round(limit_rate_bps * _BUFFERED_S)))


def _chosen(request: Request, before: Request | None) -> Settings:
    """Return what the request's options and its protocol ask of libcurl.

    Raises: TaskFailed.
    """
    if before is not None and before.has_options():
        if (before.options, before.url) != (request.options, request.url):
            raise RuntimeError("a handle that served a task with options was not renewed")
        return []
    scheme = request.url[:4].lower()
    settings = _of_scheme(scheme, request, None if before is None else before.url[:4].lower())
    if not request.has_options():
        return settings
    options = request.options
    settings += tls_settings(options) + proxy_settings(options) + login_settings(options, request.url.decode())
    settings += _network_settings(request) + _http_settings(options, is_tls=request.url[:6].lower() == b"https:")
    if scheme != b"http" or _asks_for_own_connection(options):
        settings += [(pycurl.FRESH_CONNECT, 1), (pycurl.FORBID_REUSE, 1)]
    return settings


def _asks_for_own_connection(options: TransferOptions) -> bool:
    """Tell whether libcurl could give this request a connection made otherwise, or this one's to another request.

    It compares what TLS was asked for, but not kinds of addresses, nor, before 8.19, a proxy's logins (CVE-2026-3784).
    For SSH it compares neither keys nor whether the host was verified, for FTP before 8.0 not whether TLS was wanted
    (CVE-2023-27535), so these always have a connection of their own when a task has options.
    """
    has_proxy_login = options.proxy is not None and "@" in options.proxy
    return options.ip_version is not IpVersion.ANY or options.interface is not None or has_proxy_login


def _of_scheme(scheme: bytes, request: Request, before: bytes | None) -> Settings:
    """Return what differs between protocols; nothing for HTTP on a handle that has served nothing else."""
    if scheme == b"http":
        return [(pycurl.HTTPPROXYTUNNEL, 0), (pycurl.OPT_FILETIME, 0)] if before not in (None, b"http") else []
    if scheme == b"sftp":
        return [(pycurl.OPT_FILETIME, 1), *usual_ssh_login(request.url.decode()), *ssh_settings(request.options)]
    # Else libcurl would ask an HTTP proxy for the file in HTTP, and an error page would be taken for the file.
    return [(pycurl.HTTPPROXYTUNNEL, 1), (pycurl.OPT_FILETIME, 1), *ftp_tls_settings(request.options)]


def _network_settings(request: Request) -> Settings:
    options = request.options
    settings: Settings = []
    if options.ip_version in _IP_VERSIONS:
        if not options.proxy:  # which is what is reached then
            _refuse_other_kind(request.url.decode(), options.ip_version)
        settings.append((pycurl.IPRESOLVE, _IP_VERSIONS[options.ip_version]))
    if options.interface is not None:
        # With a prefix, libcurl never takes a name for a host to be resolved.
        kind = "host" if _is_address(options.interface) else "if"
        settings.append((pycurl.INTERFACE, f"{kind}!{options.interface}".encode()))
    return settings


def _http_settings(options: TransferOptions, *, is_tls: bool) -> Settings:
    settings: Settings = []
    if options.referer is not None:
        settings.append((pycurl.REFERER, options.referer.encode()))
    if options.user_agent is not None:
        settings.append((pycurl.USERAGENT, options.user_agent.encode()))
    match options.http_version:
        case HttpVersion.AUTO | HttpVersion.HTTP_2:
            pass  # libcurl's default: 2 over TLS where the server offers it
        case HttpVersion.HTTP_1_1:
            settings.append((pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1))
        case HttpVersion.HTTP_3:
            if not _HAS_HTTP3:
                raise TaskFailed(FailureCode.BAD_URL, "this machine's libcurl does not speak HTTP/3")
            if is_tls:
                settings.append((pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_3))
    return settings


def _refuse_other_kind(url: str, asked: IpVersion) -> None:
    """Refuse an address of the other kind in a URL: some versions of libcurl would use it all the same.

    Raises: TaskFailed.
    """
    with contextlib.suppress(ValueError):  # it has a name, which has addresses of both kinds
        address = ipaddress.ip_address(urlsplit(url).hostname or "")
        if str(address.version) != asked.value:
            words = f"{address} is no address of IPv{asked.value}, which is asked for"
            raise TaskFailed(FailureCode.CONNECT, words)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _apply(easy: pycurl.Curl, settings: Settings) -> None:
    for option, value in settings:
        easy.setopt(option, value)


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
