"""What a process of the pool may take from the machine: memory, descriptors, processes, time on CPU and disk.

Runs as: root, before the drop (a private daemon's user).  Talks to: the kernel.
Memory is limited by RLIMIT_DATA: it counts what is written to, the stacks of libcurl's resolver threads included, and
not what malloc only reserves, as RLIMIT_AS would.
How it fails: a priority that a service manager or kernel refuses is left as it is; a limit that can't be set raises.
Known limits: the kernel counts processes and threads by user, so those that a user has besides count too.
Source: setrlimit(2), ioprio_set(2), sched(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
from pathlib import Path

from autodl_lib.contract.settings import IoPriority, WorkerSection

MANAGER_FILES = 1024
"""Descriptors of the report queue's process: one for each worker."""

_AUTOGROUP = Path("/proc/self/autogroup")

_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "armv7l": 314, "ppc64le": 273, "s390x": 282}
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_SHIFT = 13
_BEST_EFFORT, _IDLE = 2, 3


def apply_limits(limits: WorkerSection) -> None:
    """Bind this process, and all that it may ever start, to the limits.

    Raises: OSError, ValueError.
    """
    limit_files(limits.files)
    for kind, most in (
        (resource.RLIMIT_DATA, limits.memory_bytes),
        (resource.RLIMIT_NPROC, limits.processes),
        (resource.RLIMIT_FSIZE, limits.file_size_bytes),
    ):
        if most:
            _limit(kind, most)
    _limit(resource.RLIMIT_MSGQUEUE, 0)
    _limit(resource.RLIMIT_RTPRIO, 0)
    stand_back(limits.nice)
    _set_io_priority(limits.io_priority)


def stand_back(nice: int) -> None:
    """Take this niceness, or a higher one that was inherited; the supervisor's own may be lower (precedence.py)."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(nice, os.getpriority(os.PRIO_PROCESS, 0)))
    # Where each session is a group for the scheduler, niceness counts within it alone.
    with contextlib.suppress(OSError):
        if not _AUTOGROUP.read_text().endswith(f" nice {nice}\n"):
            _AUTOGROUP.write_text(str(nice))


def limit_files(most: int) -> None:
    """Take back the many descriptors that the supervisor allows itself."""
    _limit(resource.RLIMIT_NOFILE, most)


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(kind, (most, most))


def _set_io_priority(priority: IoPriority) -> None:
    number = _IOPRIO_SET.get(platform.machine())
    if priority is IoPriority.NONE or number is None:
        return
    level = (_IDLE, 0) if priority is IoPriority.IDLE else (_BEST_EFFORT, int(priority))
    value = level[0] << _IOPRIO_CLASS_SHIFT | level[1]
    ctypes.CDLL(None, use_errno=True).syscall(number, _IOPRIO_WHO_PROCESS, 0, value)
