"""Keeps what speaks to networks out of the process that runs as root: importing this, before anything else, does it.

Runs as: the supervisor.  Talks to: nobody.
The supervisor speaks to no network, but asyncio imports `ssl`, `hashlib` loads OpenSSL for the digests of a few short
words, and `xmlrpc.client`, whose encoding alone the report queue needs, an HTTP client and all of `email`. They do
without where these are missing. That is less code in a process of root, and 7 MiB.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

_modules: dict[str, Any] = sys.modules
for _name in ("ssl", "_ssl", "_hashlib"):
    _modules.setdefault(_name, None)
_modules.setdefault("http.client", ModuleType("http.client"))  # it is imported by name, and used in no method of ours
