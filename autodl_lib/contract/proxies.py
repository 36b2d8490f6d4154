"""What a proxy may be named as.

Runs as: everyone.  Talks to: nobody; no I/O.
Source: curl(1), --proxy.
"""

from __future__ import annotations

import re

from autodl_lib.contract.errors import InvalidParams

PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f]")
_PROXY = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?"
    r"(?:[^/?#]*@)?"
    r"(?:\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\]|[^/?#@:\[\]]+)"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)


def check_proxy(proxy: str) -> None:
    """Check that a proxy is an empty word (none), `SCHEME://HOST:PORT` or `HOST:PORT`, which is http.

    Raises: InvalidParams, with a message that shows no password.
    """
    if not proxy:
        return
    match = None if _FORBIDDEN.search(proxy) else _PROXY.fullmatch(proxy)
    # What stands before an @ may be a password.
    shown = ascii(proxy.rpartition("@")[2][:80])
    if match is None or (match["port"] is not None and not 0 < int(match["port"]) < 65536):
        raise InvalidParams(f"a proxy is written as SCHEME://HOST:PORT: {shown}")
    scheme = match["scheme"]
    if scheme is not None and scheme.lower() not in PROXY_SCHEMES:
        raise InvalidParams(f"a proxy's scheme is one of {', '.join(PROXY_SCHEMES)}, and not {scheme[:20]!r}")
