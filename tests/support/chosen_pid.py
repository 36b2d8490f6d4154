"""A child under a number of our choice, for tests of what happens when a number is used again."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from collections.abc import Callable

from support.waiting import wait_until

_CLONE3 = 435
_PLACES = 11
"""flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup."""


def fork_as(pid: int, work: Callable[[], None]) -> int:
    """Fork a child that has this number, as soon as that is free, and that does the work and ends.

    Source: clone3(2), set_tid. The interpreter does not know of this fork: the work must be short, or exec.
    """
    library = ctypes.PyDLL(None, use_errno=True)  # does not let go of the interpreter's lock, which nobody would take
    numbers = (ctypes.c_int32 * 1)(pid)
    places = [0] * _PLACES
    places[4], places[8], places[9] = signal.SIGCHLD, ctypes.addressof(numbers), 1
    arguments = ctypes.create_string_buffer(struct.pack(f"{_PLACES}Q", *places))

    def fork() -> bool:
        child = library.syscall(_CLONE3, arguments, ctypes.c_size_t(8 * _PLACES))
        if child == 0:
            try:
                work()
            finally:
                os._exit(0)
        if child < 0 and ctypes.get_errno() != errno.EEXIST:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return bool(child == pid)

    wait_until(fork, f"the number {pid} is free")
    return pid
