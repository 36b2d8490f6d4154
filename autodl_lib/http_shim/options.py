"""What `autodl http` was asked to do, as a whole.

Runs as: an unprivileged account.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autodl_lib.client.connection import Connection

DEFAULT_LISTEN = "127.0.0.1:6736"
"""The port of the first autodl, of 2017. IANA has given it to nobody, and the kernel gives it to no client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """The command line, checked no further than click can."""

    open_daemon: Callable[[], Connection]
    listen: tuple[str, ...] = ()
    token_file: str | None = None
    folders: tuple[str, ...] = ()
    host_names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    allow_remote: bool = False
    read_only: bool = False
    patience_s: float | None = None
