"""Reserving disk space for a part file, so that it is in one piece and a full disk shows before the bytes come.

Runs as: the task's owner, in the sync thread.  Talks to: the file system.
Invariants: a file's size and bytes never change, only the blocks behind its end; nothing is ever written in the
file system's stead, as posix_fallocate(3) would.
How it fails: OSError only where there is no room: ENOSPC, EDQUOT, EFBIG. What can't be reserved for any other
reason is left to the writes.
Known limits: a reservation that fails half-way (a quota, a race for the last blocks) may keep what it had got, until
`give_back`. The type of a file system is not recognised on s390x, where reserving is tried on all of them.
Source: fallocate(2), statfs(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable

_KEEP_SIZE = 1
_MAX_OFFSET = 2**63 - 1
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_STATFS_BYTES = 512

_LITTLE_USE = frozenset(
    {
        0x01021994,  # tmpfs, where it takes memory at once
        0x858458F6,  # ramfs
        0x6969,  # NFS: a round trip to a server that may write zeros
        0x517B,  # SMB
        0xFE534D42,  # SMB2
        0xFF534D42,  # CIFS
        0x5346414F,  # AFS
        0x00C36400,  # Ceph
        0x01021997,  # 9P
        0x65735546,  # FUSE: sshfs, NTFS and others that may write zeros
        0x2FC12FC1,  # ZFS, which reserves nothing
    }
)
"""`f_type` of file systems where reserving costs more than it helps. Source: linux/magic.h, statfs(2)."""


def preallocate(fd: int, offset: int, length: int) -> None:
    """Reserve the blocks of a byte range; the file's size stays what it is.

    Raises: OSError when there is no room for the range.
    """
    if length <= 0 or _fallocate is None or _file_system_type(fd) in _LITTLE_USE:
        return
    if offset + length > _MAX_OFFSET:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    if length > _free_bytes(fd) + os.fstat(fd).st_blocks * 512:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # tried in vain, it would fill the disk first
    number = errno.EINTR
    while number == errno.EINTR:
        number = 0 if _fallocate(fd, _KEEP_SIZE, offset, length) == 0 else ctypes.get_errno()
    if number in _NO_ROOM:
        raise OSError(number, os.strerror(number))


def give_back(fd: int) -> None:
    """Release what is reserved behind the file's end; only while nobody writes to it.

    Raises: OSError.
    """
    os.ftruncate(fd, os.fstat(fd).st_size)


def _free_bytes(fd: int) -> int:
    status = os.fstatvfs(fd)
    return status.f_bavail * status.f_frsize


def _file_system_type(fd: int) -> int | None:
    status = ctypes.create_string_buffer(_STATFS_BYTES)
    if _fstatfs is None or _fstatfs(fd, status) != 0:
        return None
    return int(ctypes.c_ulong.from_buffer(status).value & 0xFFFFFFFF)


def _find(name: str, *types: type) -> Callable[..., int] | None:
    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        return None
    function.argtypes = types
    call: Callable[..., int] = function
    return call


_fallocate = _find("fallocate64", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64) or _find(
    "fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64
)
_fstatfs = _find("fstatfs", ctypes.c_int, ctypes.c_void_p)
