"""What the daemon says first.

Runs as: everyone.  Talks to: nobody; no I/O.
Invariants: field names are fixed points of `--json`.
"""

from __future__ import annotations

from autodl_lib.contract.light_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """The first line that the daemon sends on a connection, as the params of a notification `hello`."""

    protocol: int
    version: str
