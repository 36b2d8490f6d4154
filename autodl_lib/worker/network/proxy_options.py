"""How a transfer goes through a proxy.

Runs as: the task's owner.  Talks to: nobody; no I/O.
Invariants: neither the proxy's user name nor its password is in any message; a password goes out unasked only inside
of TLS.
Known limits: what the environment says of proxies counts for tasks that say nothing; a daemon of the system has none.
"""

from __future__ import annotations

import re

import pycurl

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.worker.network.tls_options import Settings
from autodl_lib.worker.network.verdicts import TaskFailed

_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_PROXY = re.compile(r"(?:(?P<scheme>[A-Za-z0-9+.-]+)://)?(?:(?P<login>[^/?#\s]*)@)?(?P<place>[^/?#\s@]+)/?")
_VERSION_HTTPS_PROXY = 1 << 21  # curl.h; pycurl 7.45.2 does not know it
_HAS_HTTPS_PROXY = bool(pycurl.version_info()[4] & _VERSION_HTTPS_PROXY)


def proxy_settings(options: TransferOptions) -> Settings:
    """Return what a task's options ask of proxies.

    Raises: TaskFailed, for a proxy that makes no sense.
    """
    settings: Settings = []
    if options.no_proxy is not None:
        settings.append((pycurl.NOPROXY, options.no_proxy.encode()))
    if options.proxy is None:
        return settings
    settings.append((pycurl.PROXY, options.proxy.encode()))
    if options.proxy == "":
        return settings
    found = _PROXY.fullmatch(options.proxy)
    scheme = (found["scheme"] or "http").lower() if found is not None else ""
    if found is None or scheme not in _SCHEMES:
        kinds = ", ".join(f"{known}://" for known in _SCHEMES)
        raise TaskFailed(FailureCode.BAD_URL, f"the proxy is not one of {kinds} with HOST:PORT")
    if scheme == "https" and not _HAS_HTTPS_PROXY:
        raise TaskFailed(FailureCode.BAD_URL, "this machine's libcurl can't use a proxy over TLS")
    if found["login"] is not None and scheme == "http":
        settings.append((pycurl.PROXYAUTH, pycurl.HTTPAUTH_BASIC | pycurl.HTTPAUTH_DIGEST))
    return settings
