"""Keeps TLS out of the process that runs as root: importing this, before anything else of the daemon, does it.

Runs as: the supervisor.  Talks to: nobody.
The supervisor speaks to no network, but asyncio imports `ssl`, and `hashlib` loads OpenSSL for the digests of a few
short words. Both do without where the modules are missing. That is a library less in a process of root, and 6 MiB.
"""

from __future__ import annotations

import sys
from typing import Any

_modules: dict[str, Any] = sys.modules
for _name in ("ssl", "_ssl", "_hashlib"):
    _modules.setdefault(_name, None)
