"""Brings many files to the disk with two system calls: the kernel syncs them side by side, the journal commits once.

Runs as: the task's owner, in the sync thread.  Talks to: the disk.
An fsync each would give Python's lock away and want it back for every file, in the way of the loop each time.
Invariants: what is told of a file is what fsync(2) of it would have said; a file that the kernel does not take this
way is synced by fsync itself.
How it fails: as fsync, each file for itself. Where the kernel has no asynchronous I/O for us (another machine, a
filter of system calls, `fs.aio-max-nr` used up), the files are written back together and then synced one by one. So
they are from then on where it tells us no results any more; what it may still have is never asked for.
Known limits: an error that such a lost result would have told, fsync does not tell again; so it is found out before
anything is synced whether results can be had at all.
Source: io_submit(2) and linux/aio_abi.h; IOCB_CMD_FSYNC is there since Linux 4.18.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import platform
import sys
from collections.abc import Callable, Sequence

AT_ONCE = 64
"""Files in one submission."""

_CMD_FSYNC = 2

logger = logging.getLogger(__name__)


class _Request(ctypes.Structure):
    """struct iocb, as it is on little-endian machines."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_int32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("fd", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("event_fd", ctypes.c_uint32),
    )


class _Event(ctypes.Structure):
    """struct io_event."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("request", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("result2", ctypes.c_int64),
    )


class GroupSync:
    """Syncs files together; for one thread."""

    def __init__(self) -> None:
        self._queue: AioQueue | None = None
        self._was_tried = False

    def synced(self, fds: Sequence[int]) -> Callable[[int], None]:
        """Bring the bytes of all files to the disk; return what is to be called in the place of fsync for each."""
        if len(fds) == 1:
            return os.fsync
        if not self._was_tried:
            self._was_tried = True
            self._queue = AioQueue.open()
        outcomes: dict[int, OSError | None] = {}
        for first in range(0, len(fds), AT_ONCE):
            self._sync_together(fds[first : first + AT_ONCE], outcomes)
        for fd in fds:
            if fd not in outcomes:
                _start_write_back(fd)

        def fsync(fd: int) -> None:
            if fd not in outcomes:
                os.fsync(fd)
            elif (error := outcomes[fd]) is not None:
                raise error

        return fsync

    def _sync_together(self, fds: Sequence[int], outcomes: dict[int, OSError | None]) -> None:
        if self._queue is None:
            return
        try:
            self._queue.sync(fds, outcomes)
        except Exception as error:  # noqa: BLE001  whatever it is: the files are synced one by one
            # Results that it has yet to tell would be taken for those of the next files.
            self._queue = None
            logger.info("files are synced one by one", extra={"event": "no_group_sync", "reason": str(error)})


class AioQueue:
    """The kernel's queue of asynchronous I/O."""

    def __init__(self, call: Callable[..., int], numbers: tuple[int, int, int], context: ctypes.c_ulong) -> None:
        self._call = call
        _, self._submit, self._getevents = numbers
        self._context = context
        self._requests = (_Request * AT_ONCE)()
        size = ctypes.sizeof(_Request)
        addresses = (ctypes.addressof(self._requests) + index * size for index in range(AT_ONCE))
        self._pointers = (ctypes.c_void_p * AT_ONCE)(*addresses)
        self._events = (_Event * AT_ONCE)()

    @classmethod
    def open(cls) -> AioQueue | None:
        """Ask the kernel for a queue; None where there is none for us."""
        numbers = _NUMBERS.get(platform.machine())
        if numbers is None or sys.maxsize < 2**32 or sys.byteorder != "little":
            return None
        try:
            call: Callable[..., int] = ctypes.CDLL(None, use_errno=True).syscall
        except (OSError, AttributeError):
            return None
        context = ctypes.c_ulong(0)
        if call(ctypes.c_long(numbers[0]), ctypes.c_uint(AT_ONCE), ctypes.byref(context)) != 0:
            return None
        queue = cls(call, numbers, context)
        try:
            queue._wait(0)
        except OSError:  # a filter that knows only a part of it
            return None
        return queue

    def sync(self, fds: Sequence[int], outcomes: dict[int, OSError | None]) -> None:
        """Sync at most AT_ONCE files, and note for each descriptor what fsync would have raised.

        Raises: OSError where results are told no more; this queue is of no use then.
        """
        for index, fd in enumerate(fds):
            request = self._requests[index]
            request.data, request.opcode, request.fd = index, _CMD_FSYNC, fd
        begun = taken = 0
        while begun < len(fds):
            submitted = self._submit_from(begun, len(fds) - begun)
            taken += submitted
            begun += submitted
            if begun < len(fds):  # not this one: a kind of file or a state of the kernel that only fsync can name
                outcomes[fds[begun]] = _fsync(fds[begun])
                begun += 1
        while taken:
            came = self._wait(taken)
            for event in self._events[:came]:
                result = event.result
                outcomes[fds[event.data]] = None if result == 0 else OSError(-result, os.strerror(-result))
            taken -= came

    def _submit_from(self, index: int, count: int) -> int:
        """Submit requests from `index` on; return how many the kernel took."""
        pointers = ctypes.byref(self._pointers, index * ctypes.sizeof(ctypes.c_void_p))
        return max(0, self._call(ctypes.c_long(self._submit), self._context, ctypes.c_long(count), pointers))

    def _wait(self, count: int) -> int:
        """Wait for `count` results; return how many came."""
        number, wanted = ctypes.c_long(self._getevents), ctypes.c_long(count)
        while True:
            came = self._call(number, self._context, wanted, wanted, self._events, None)
            if came >= 0:
                return came
            if (code := ctypes.get_errno()) != errno.EINTR:
                raise OSError(code, os.strerror(code))


def _fsync(fd: int) -> OSError | None:
    try:
        os.fsync(fd)
    except OSError as error:
        return error
    return None


def _start_write_back(fd: int) -> None:
    """Begin to write a file's dirty pages without waiting. Source: posix_fadvise(2), mm/fadvise.c."""
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        return


_GENERIC = (0, 2, 4)
_NUMBERS = {
    "x86_64": (206, 209, 208),
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
    "loongarch64": _GENERIC,
    "ppc64le": (227, 230, 229),
}
"""Of io_setup, io_submit and io_getevents. Source: the kernel's asm/unistd.h of each machine."""
