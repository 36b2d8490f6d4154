"""What the declarations of requests share: who may send one, and bounds.

Runs as: everyone.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from enum import StrEnum

MAX_IDS = 10_000
PRIORITY_RANGE = 1000
MAX_LABEL_LENGTH = 100
MAX_HEADER_LENGTH = 8192


class Access(StrEnum):
    """Who may send a request: any local user, the owner of the tasks that it names, an administrator."""

    ANYONE = "anyone"
    OWNER = "owner"
    ADMIN = "admin"
