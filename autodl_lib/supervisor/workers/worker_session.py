"""The one session that all workers are in: theirs, and not the supervisor's.

Runs as: the forkserver, which loads this before it forks; nobody else does.  Talks to: the kernel.
Where the kernel shares processors out by session (autogroup), one for each worker would give sixteen downloads sixteen
shares, and the user's whole shell one. So together they are one, as one program is; and a supervisor that comes before
others (precedence.py) does not take them along.
How it fails: without it each worker begins a session of its own (first_code.leave_session).
Source: sched(7), "The autogroup feature"; setsid(2).
"""

from __future__ import annotations

import contextlib
import os

with contextlib.suppress(PermissionError):  # it leads one already
    os.setsid()
