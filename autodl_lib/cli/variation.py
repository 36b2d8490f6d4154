"""What differs between the requests of one command line: a URL's proxy, and its checksums.

Runs as: the caller.  Talks to: the environment.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from autodl_lib.contract.requests.adding import Add

if TYPE_CHECKING:
    from autodl_lib.cli.checksum_input import ChecksumInput


class Variation:
    """Makes the request for a URL of the one for all; none of them names its URLs yet."""

    def __init__(self, first: Add, checksums: ChecksumInput | None) -> None:
        self._has_proxies = any(name.lower().endswith("_proxy") for name in os.environ)
        self._first = self._with_no_proxy(first) if first.proxy and self._has_proxies else first
        self._has_proxies = self._has_proxies and first.proxy is None
        self._lists = checksums if checksums is not None and checksums.lists else None
        self._by_scheme: dict[str, Add] = {}

    @property
    def for_all(self) -> Add | None:
        """The request for all URLs, None where they may differ."""
        return None if self._has_proxies or self._lists is not None else self._first

    def of(self, url: str, name: str | None = None) -> Add:
        """Return the request for one URL, whose file is also known as `name`.

        Raises: InvalidParams, click.UsageError.
        """
        found = self._with_proxy(url) if self._has_proxies else self._first
        if self._lists is None:
            return found
        return replace(found, checksums=self._lists.of(url, found.output or name))

    def _with_proxy(self, url: str) -> Add:
        scheme = url.partition("://")[0].lower()
        found = self._by_scheme.get(scheme)
        if found is None:
            from autodl_lib.cli.proxies import environment_proxy

            proxy = environment_proxy(scheme, os.environ)
            found = self._first if proxy is None else self._with_no_proxy(replace(self._first, proxy=proxy))
            self._by_scheme[scheme] = found
        return found

    @staticmethod
    def _with_no_proxy(request: Add) -> Add:
        from autodl_lib.cli.proxies import environment_no_proxy

        return request if request.no_proxy is not None else replace(request, no_proxy=environment_no_proxy(os.environ))
