"""The supervisor's place before its workers where processors are short: what it does is little, and others wait for it.

Runs as: root (a private daemon may not, and stays where it is).  Talks to: the kernel.
Invariants: who was started with another niceness than usual keeps that. What the pool starts does not inherit it
(privilege/limits.py).
How it fails: where the kernel or a service manager refuses, nothing changes; the unit has `Nice=` for that.
Source: setpriority(2); sched(7), "The autogroup feature": a session is a group, and niceness counts within it alone.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_NICENESS = -8
"""Five times the share of a worker: enough to answer at once among many, and no more than short bursts need."""

_GROUP = Path("/proc/self/autogroup")


def take_precedence() -> None:
    """Come before workers; to be called before there are threads, each of which has a niceness of its own."""
    if os.getpriority(os.PRIO_PROCESS, 0) != 0:
        return
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
        if os.getsid(0) == os.getpid():  # else it is the session of a shell, and of all that runs there
            _GROUP.write_text(str(_NICENESS))
