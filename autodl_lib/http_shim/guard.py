"""Who may ask at all: the token, and what keeps web pages out.

Runs as: an unprivileged account.  Talks to: nobody; no I/O.
Security: over TCP the kernel doesn't say who asks, so a caller is whoever has the token; without it nothing is answered
but 401. A page in a browser on this machine has no token, but it can reach a loopback port, also under a name of its
own that it has lead here (DNS rebinding): so Host must name the loopback or what --host-name says, and a request with
an Origin, which is what browsers send for pages, is refused unless --allow-origin names that origin.
Source: RFC 6750 (bearer tokens), RFC 9110 section 7.2 (Host), the Fetch standard (Origin, CORS).
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from dataclasses import dataclass

from autodl_lib.contract.errors import InvalidParams
from autodl_lib.http_shim.messages import Head
from autodl_lib.http_shim.refusals import Headers, bad_host, bad_origin, unauthorized

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?", re.ASCII)
_ORIGIN = re.compile(r"https?://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?", re.ASCII)
_SCHEME = "bearer "
_ALWAYS = frozenset({"localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What is let in; names are lower case."""

    token: bytes
    host_names: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    def check_token(self, head: Head) -> None:
        """Refuse a caller without the token.

        Raises: Refusal.
        """
        values = [value for name, value in head.headers if name == "authorization"]
        shown = values[0] if len(values) == 1 else ""
        if not shown[: len(_SCHEME)].lower() == _SCHEME:
            raise unauthorized()
        if not hmac.compare_digest(shown[len(_SCHEME) :].strip().encode("latin-1"), self.token):
            raise unauthorized()

    def check_page(self, head: Head) -> None:
        """Refuse what a web page may have sent.

        Raises: Refusal.
        """
        if not self._is_here(head.one("host")):
            raise bad_host()
        origin = head.one("origin")
        if origin is not None and origin not in self.origins:
            raise bad_origin()

    def is_preflight(self, head: Head) -> bool:
        """Tell whether a browser asks beforehand if a page of an allowed origin may ask; it sends no token then."""
        if head.method != "OPTIONS" or head.one("access-control-request-method") is None:
            return False
        return head.one("origin") in self.origins and self._is_here(head.one("host"))

    def origin_headers(self, head: Head) -> Headers:
        """Return the headers by which a browser shows the answer to a page of an allowed origin."""
        origin = next((value for name, value in head.headers if name == "origin"), None)
        if not self.origins:
            return ()
        vary = (("Vary", "Origin"),)
        return (*vary, ("Access-Control-Allow-Origin", origin)) if origin and origin in self.origins else vary

    def _is_here(self, host: str | None) -> bool:
        match = _HOST.fullmatch(host or "")
        if match is None:
            return False
        name = match[1].lower().strip("[]")
        if name in _ALWAYS or name in self.host_names:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


PREFLIGHT_HEADERS: Headers = (
    ("Access-Control-Allow-Methods", "GET, HEAD, POST"),
    ("Access-Control-Allow-Headers", "Authorization, Content-Type"),
    ("Access-Control-Max-Age", "600"),
)


def checked_origin(text: str) -> str:
    """Return an origin as browsers write it.

    Raises: InvalidParams.
    """
    origin = text.lower()
    if not _ORIGIN.fullmatch(origin):
        raise InvalidParams(f"--allow-origin: an origin is http(s)://HOST or http(s)://HOST:PORT, not {text[:80]!r}")
    return origin


def checked_host(text: str) -> str:
    """Return a name that a Host header may have, without its port.

    Raises: InvalidParams.
    """
    match = _HOST.fullmatch(text)
    if match is None or match[1] != text:
        raise InvalidParams(f"--host-name: a host's name or address without a port, not {text[:80]!r}")
    return text.lower().strip("[]")
