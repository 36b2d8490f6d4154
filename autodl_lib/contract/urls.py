"""What a URL must be to be queued, whose host it is, and how to show it without its secrets.

Runs as: everyone.  Talks to: nobody; no I/O.
Source: RFC 3986; the schemes are those that libcurl may be asked for, never file.
"""

from __future__ import annotations

import re

from autodl_lib.contract.errors import BadUrl

SCHEMES = ("http", "https", "ftp", "ftps", "sftp")
MAX_URL_LENGTH = 65536
MAX_PORT = 65535

_DEFAULT_PORTS = {"http": 80, "https": 443, "ftp": 21, "ftps": 990, "sftp": 22}
_COMMON = re.compile(r"(https?)://([a-z0-9._-]+)(?::([0-9]{1,5}))?(?:[/?#][\x21-\x7e]*)?")
"""What most URLs look like: of those no part needs a closer look."""

# Not compiled before they are asked for: that takes longer than to look at a URL.
_FORBIDDEN = r"[\x00-\x20\x7f]"
_USERINFO = r"^([a-zA-Z][a-zA-Z0-9+.-]*://)([^/?#]*)@"


def check_url(url: str) -> str:
    """Return the `host:port` that a URL asks, lower case.

    Raises: BadUrl, with a message that names the URL without its password.
    """
    common = _COMMON.fullmatch(url) if len(url) <= MAX_URL_LENGTH else None
    if common is not None and int(common[3] or 0) <= MAX_PORT:
        scheme, host, port = common.groups()
        return f"{host}:{int(port or 0) or _DEFAULT_PORTS[scheme]}"
    from urllib.parse import urlsplit  # not at the top: most commands check no URL, and start faster without

    if not url:
        raise BadUrl("the URL is empty")
    shown = redact_url(url)
    if len(url) > MAX_URL_LENGTH:
        raise BadUrl(f"the URL is over {MAX_URL_LENGTH} characters long: {shown[:80]}...")
    if re.search(_FORBIDDEN, url):
        raise BadUrl(f"the URL has a space or a control character in it; write a space as %20: {shown!r}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadUrl(f"not a URL: {shown}: {error}") from None
    if not parts.scheme or "://" not in url:
        raise BadUrl(f"not a URL: {shown}: it must begin with one of {', '.join(s + '://' for s in SCHEMES)}")
    if parts.scheme not in SCHEMES:
        raise BadUrl(f"unsupported scheme {parts.scheme!r} in {shown}: autodl downloads {', '.join(SCHEMES)}")
    if not host:
        raise BadUrl(f"the URL names no host: {shown}")
    return f"{host}:{port or _DEFAULT_PORTS[parts.scheme]}"


def redact_url(url: str) -> str:
    """Return the URL with user name and password replaced by `***`, fit for logs and for other people."""
    return re.sub(_USERINFO, r"\1***@", url) if "@" in url else url


def public_url(url: str) -> str:
    """Return the URL as it may be shown to people other than its owner: its query may be as good as a password."""
    shown, mark, _ = redact_url(url).partition("?")
    return f"{shown}?***" if mark else shown
