"""Which proxies the caller's environment names; the daemon is another process, and does not see them.

Runs as: the caller.  Talks to: the environment.
Source: curl(1), ENVIRONMENT: http_proxy is lower case only, because a CGI program has HTTP_PROXY from its client.
Known limits: mirrors of another scheme than their URL's use its proxy.
"""

from __future__ import annotations

from collections.abc import Mapping

from autodl_lib.contract.errors import InvalidParams
from autodl_lib.contract.proxies import check_proxy


def environment_proxy(scheme: str, environment: Mapping[str, str]) -> str | None:
    """Return the proxy for URLs of a scheme, or None.

    Raises: InvalidParams, which names the variable.
    """
    names = [f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY"]
    for name in names:
        proxy = environment.get(name, "")
        if not proxy or name == "HTTP_PROXY":
            continue
        if proxy.lower().startswith("socks://"):
            # As curl reads it; desktops set it so.
            proxy = "socks4" + proxy[len("socks") :]
        try:
            check_proxy(proxy)
        except InvalidParams as error:
            raise InvalidParams(f"{error} (from ${name}; `--proxy ''` is none)") from None
        return proxy
    return None


def environment_no_proxy(environment: Mapping[str, str]) -> str | None:
    """Return the hosts that are reached without a proxy, or None."""
    return environment.get("no_proxy") or environment.get("NO_PROXY") or None
