"""Processes that a worker left behind: none outlives its worker by more than a moment.

Runs as: the supervisor, on the thread that starts processes, so that none is just being started.
Talks to: the kernel, which gives the orphans of all that we started to us (PR_SET_CHILD_SUBREAPER).
A worker starts nothing. One that was taken over can fork, and its child may hide in a session of its own; but when
its parent ends it becomes our child, and of those we know all that should be there.
How it fails: where the kernel doesn't list children (CONFIG_PROC_CHILDREN), orphans stay until the service stops.
Known limits: a child lives for as long as its worker, or as all parents of it between them do.
Source: prctl(2), proc(5).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_ROUNDS = 100
_ROUND_S = 0.002


def become_reaper() -> None:
    """Have every orphan among our descendants become our child."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans(known: Collection[int], waited_for: Collection[int]) -> list[int]:
    """End all children but the `known`, and what those leave behind; return their pids. Blocks for a moment.

    Of the known ones, those that are `waited_for` elsewhere are not waited for here.
    """
    ended: list[int] = []
    for _ in range(_ROUNDS):
        left = [pid for pid in _children() if pid not in waited_for and not _reaped(pid) and pid not in known]
        if not left:
            break
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            if pid not in ended:
                ended.append(pid)
        time.sleep(_ROUND_S)
    return ended


def await_children(timeout_s: float) -> None:
    """Wait until no child is left, nor what children leave to us when they end; for so long at most."""
    until_mono = time.monotonic() + timeout_s
    while (left := _children()) and time.monotonic() < until_mono:
        if not [pid for pid in left if _reaped(pid)]:
            time.sleep(_ROUND_S)


def _reaped(pid: int) -> bool:
    """Wait for a child if it has ended; its pid is nobody else's until then."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _children() -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):  # no descriptor is left, say: they are found another time
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found
