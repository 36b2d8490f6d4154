"""What libcurl's own words say of a connection that failed, where its code alone says too little.

Runs as: the task's owner.  Talks to: /proc/net, when the network may be down.
Invariants: words are recognised, never passed on, except for host names and ports; both TLS libraries of libcurl that
Linux distributions use are known here, and both ways that libcurl 7 and 8 put it.
Known limits: of a certificate that is not trusted, GnuTLS does not say why. After a redirect a message may name the
first host where libcurl names none.
"""

from __future__ import annotations

import errno
import re

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import IpVersion, TransferOptions
from autodl_lib.worker.network.default_route import has_default_route, is_loopback

FailureWords = tuple[FailureCode, str]
"""A code, and a sentence with {host}, {port}, {reason} and the like to fill in."""

_NO_PROXY_NAME, _NO_HOST_NAME, _NO_CONNECTION, _BROKE = 5, 6, 7, 56
_BAD_ARGUMENT, _INTERFACE, _TLS, _CLIENT_CERT, _PEER, _CA_FILE, _SOCKS = 43, 45, 35, 58, 60, 77, 97

PROXY_LOGIN = "the proxy wants a user name and password, or refuses those that it got"
_TUNNEL = re.compile(r"CONNECT tunnel failed, response (\d{3})")
_UNCONNECTED = re.compile(r"Failed to connect to (?P<host>\S+)(?: port |:)(?P<port>\d+)(?P<proxy> over proxy )?")
_UNRESOLVED = re.compile(r"Could not resolve host: (\S+)")
_SOCKS_LOGIN = ("User was rejected", "No authentication method", "authentication", "identd")
_UNREACHABLE = (errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH)

_CERTIFICATE: tuple[tuple[str, str], ...] = (
    ("certificate has expired", "the certificate of {host} has expired"),
    ("certificate expiration date has passed", "the certificate of {host} has expired"),
    ("not yet valid", "the certificate of {host} is not valid yet"),
    ("not activated yet", "the certificate of {host} is not valid yet"),
    ("in certificate chain", "the certificate of {host} is from an authority that is not trusted here"),
    ("self-signed", "the certificate of {host} is self-signed"),
    ("self signed", "the certificate of {host} is self-signed"),
    ("issuer certificate", "the certificate of {host} is from an authority that is not trusted here"),
    ("first certificate", "the certificate of {host} is from an authority that is not trusted here"),
    ("does not match", "the certificate of {host} is for another host"),
    ("no alternative certificate subject", "the certificate of {host} is for another host"),
    ("revoked", "the certificate of {host} was revoked"),
    ("verification failed", "the certificate of {host} is not trusted here, or its time is over"),
)
"""What libcurl says of a certificate, most telling first, and what we do."""

_LOST_IN_HANDSHAKE = (
    *("reset by peer", "SSL_ERROR_SYSCALL", "unexpected eof", "SSL_ERROR_ZERO_RETURN", "Broken pipe"),
    *("non-properly terminated", "pull function", "push function"),
)
_KEY_TROUBLE = ("private key", "X.509 key or certificate", "client certificate")


def connect_words(code: int, message: str, os_errno: int, options: TransferOptions) -> FailureWords | None:
    """Return what a connection's failure means, None when libcurl's code says it all."""
    if code in (_NO_PROXY_NAME, _NO_HOST_NAME):
        return _unresolved(code, message, options)
    if code in (_NO_CONNECTION, _BROKE) and (refused := _TUNNEL.search(message)) is not None:
        return _tunnel_refused(int(refused[1]))
    if code == _NO_CONNECTION:
        return _unconnected(message, os_errno, options)
    if code == _SOCKS:
        is_login = any(words in message for words in _SOCKS_LOGIN)
        return (FailureCode.AUTHENTICATION, PROXY_LOGIN) if is_login else None
    return _tls(code, message, os_errno, options)


def _unresolved(code: int, message: str, options: TransferOptions) -> FailureWords | None:
    named = _UNRESOLVED.search(message)
    if not (named is not None and is_loopback(named[1])) and not has_default_route():
        return FailureCode.NETWORK_DOWN, "this machine has no way to the network, and can't resolve {host}"
    if code == _NO_PROXY_NAME or named is None:
        return None
    kind = {IpVersion.IPV4: " to an IPv4 address", IpVersion.IPV6: " to an IPv6 address"}.get(options.ip_version, "")
    return FailureCode.NAME_RESOLUTION, f"could not resolve the host name {_plain(named[1])}{kind}"


def _tunnel_refused(status: int) -> FailureWords:
    if status == 407:
        return FailureCode.AUTHENTICATION, f"{PROXY_LOGIN} (407)"
    if status in (401, 403):
        return FailureCode.AUTHENTICATION, f"the proxy does not allow connections to {{host}} port {{port}} ({status})"
    code = FailureCode.CONNECT if status >= 500 or status in (408, 429) else FailureCode.PROTOCOL
    return code, f"the proxy could not connect to {{host}} port {{port}} ({status})"


def _unconnected(message: str, os_errno: int, options: TransferOptions) -> FailureWords | None:
    named = _UNCONNECTED.search(message)
    if named is None:
        return None
    host, port = _plain(named["host"]), named["port"]
    if os_errno in _UNREACHABLE and not is_loopback(host) and not has_default_route():
        return FailureCode.NETWORK_DOWN, f"this machine has no way to the network, and can't reach {host}"
    is_proxy = named["proxy"] is not None or (options.proxy or "").endswith((f"{host}:{port}", f"{host}:{port}/"))
    return FailureCode.CONNECT, f"could not connect to {'the proxy ' if is_proxy else ''}{host} port {port}: {{reason}}"


def _tls(code: int, message: str, os_errno: int, options: TransferOptions) -> FailureWords | None:
    has_key_trouble = code == _CLIENT_CERT or any(words in message for words in _KEY_TROUBLE)
    if code in (_BAD_ARGUMENT, _TLS, _CLIENT_CERT) and has_key_trouble:
        return FailureCode.TLS, "the client certificate and its private key can't be used, or don't fit together"
    if code in (_TLS, _BROKE) and "certificate required" in message:
        return FailureCode.TLS, "{host} wants a client certificate"
    if code == _PEER:
        return next(((FailureCode.TLS, words) for sign, words in _CERTIFICATE if sign in message), None)
    if code == _CA_FILE and options.ca_file is not None:
        return FailureCode.TLS, f"there are no CA certificates in {_plain(options.ca_file)}"
    if code == _TLS and (os_errno in (errno.ECONNRESET, errno.EPIPE) or any(x in message for x in _LOST_IN_HANDSHAKE)):
        return FailureCode.NETWORK, "{host} broke off before a secure connection was agreed on"
    return None


def _plain(text: str) -> str:
    """Return words of others as a sentence takes them that is still to be filled in."""
    return "".join(c if c.isprintable() and c not in "{}" else "?" for c in text)[:300]
