"""A part of the file that another program left (`--continue-from`): how much of it to believe, and taking it over.

Runs as: the task's owner, with exactly the owner's rights.  Talks to: that file and aria2's control file beside it.
Invariants: the file is only read, and is a regular file; the way to it may lead through symlinks, which are the
owner's own affair. What is believed is one run of bytes from the beginning: up to the first hole; with a control
file of aria2 no more than it calls complete; without one, up to the zeros at the end, because zeros are what programs
put there before the bytes come. Zeros that were real are fetched again, and cost nothing but that. A control file
that makes no sense means that nothing is believed.
How it fails: TaskFailed with `folder`, `permission` or `disk`, in a sentence that names the path; OSError.
Known limits: gaps of zeros between bytes can't be told from bytes (several connections, without aria2's control
file); comparing the `overlap` with the server's bytes finds another file, not every gap: that takes a checksum.
Source: aria2's technical notes, "Control File (*.aria2) Format"; lseek(2), copy_file_range(2).
"""

from __future__ import annotations

import email.utils
import errno
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass

from autodl_lib.contract.failures import FailureCode
from autodl_lib.worker.network.verdicts import TaskFailed

OVERLAP_BYTES = 4 * 65536
ARIA2_SUFFIX = ".aria2"

_BUFFER_BYTES = 1024 * 1024
_COPY_BYTES = 64 * 1024 * 1024
_MAX_CONTROL_BYTES = 4 * 1024 * 1024
_CONTROL_HEAD = "4s I I Q Q I"
"""EXT, INFO HASH LENGTH (0, or this is a torrent's), PIECE LENGTH, TOTAL LENGTH, UPLOAD LENGTH, BITFIELD LENGTH."""

_BYTE_ORDER = {b"\0\0": "=", b"\0\1": ">"}
"""By version: the machine's own, the network's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignPart:
    """A part that another program left, open; `aria2_total` is the whole file's size as aria2 knew it."""

    path: str
    fd: int
    good_bytes: int
    mtime: float
    aria2_total: int | None

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aria2Progress:
    """What a control file of aria2 says."""

    total_bytes: int
    complete_bytes: int
    """How much is complete from the beginning on."""


def open_foreign_part(path: str) -> ForeignPart:
    """Open the file at `path`, which may begin with `~`, and see how much of it is to be believed.

    Raises: TaskFailed.
    """
    full = os.path.expanduser(path)
    if not os.path.isabs(full) or "\0" in full:
        raise TaskFailed(FailureCode.FOLDER, f"the file to continue from must be an absolute path: {path[:300]!r}")
    try:
        fd = _open_regular(full)
    except OSError as error:
        raise _failure(full, error) from None
    try:
        status = os.fstat(fd)
        control = _read_control(full + ARIA2_SUFFIX)
        good = 0
        progress = None
        if control is None:
            good = _without_zeros(fd, _first_hole(fd, status.st_size))
        elif (progress := parse_aria2_control(control)) is not None:
            good = min(progress.complete_bytes, _first_hole(fd, status.st_size))
    except OSError as error:
        os.close(fd)
        raise _failure(full, error) from None
    total = None if progress is None else progress.total_bytes
    return ForeignPart(path=full, fd=fd, good_bytes=good, mtime=status.st_mtime, aria2_total=total)


def copy_into(part_fd: int, foreign: ForeignPart) -> int:
    """Copy the good bytes to the beginning of a part file, as shared blocks where that can be; in the sync thread.

    Returns how many there were: fewer than `good_bytes` when the file was cut meanwhile.
    Raises: OSError.
    """
    copied = 0
    while copied < foreign.good_bytes:
        wanted = min(_COPY_BYTES, foreign.good_bytes - copied)
        try:
            count = os.copy_file_range(foreign.fd, part_fd, wanted, copied, copied)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                raise
            count = 0
        if count == 0:  # the kernel can't between these two; or the file ends, as reading will show
            return _copy_by_reading(part_fd, foreign, copied)
        copied += count
    return copied


class CopyJob:
    """A copy for the sync thread; `copied_bytes` is what came of it."""

    def __init__(self) -> None:
        self.copied_bytes = 0

    def of(self, part_fd: int, foreign: ForeignPart) -> Callable[[], None]:
        """Return what the thread is to run."""

        def run() -> None:
            self.copied_bytes = copy_into(part_fd, foreign)

        return run


def overlap(foreign: ForeignPart) -> tuple[int, bytes]:
    """Return offset and bytes of the end of the good part: what the server sends for them must be the same.

    Raises: OSError.
    """
    start = max(0, foreign.good_bytes - OVERLAP_BYTES)
    return start, os.pread(foreign.fd, foreign.good_bytes - start, start)


def may_be_older_than(last_modified: str | None, foreign: ForeignPart) -> bool:
    """Tell whether the server's file may be older than the part; False when its Last-Modified is later.

    True as well when the server doesn't say, or not in a way that makes sense.
    """
    parsed = email.utils.parsedate_tz(last_modified) if last_modified else None
    if parsed is None:
        return True
    try:
        return email.utils.mktime_tz(parsed) <= foreign.mtime
    except (ValueError, OverflowError):
        return True


def parse_aria2_control(content: bytes) -> Aria2Progress | None:
    """Return what a control file says; None for a torrent's, and for one that makes no sense.

    Pieces that are in flight count as missing, whatever chunks of them are there.
    """
    order = _BYTE_ORDER.get(content[:2])
    head = struct.Struct(f"{order or '>'}{_CONTROL_HEAD}".replace(" ", "")) if order else None
    if head is None or len(content) < 2 + head.size:
        return None
    _, info_hash_length, piece_bytes, total_bytes, _, bitfield_length = head.unpack_from(content, 2)
    if info_hash_length != 0 or piece_bytes == 0:
        return None
    bitfield = content[2 + head.size :][:bitfield_length]
    pieces = -(-total_bytes // piece_bytes)
    if len(bitfield) != bitfield_length or bitfield_length != -(-pieces // 8):
        return None
    complete_bytes = min(_leading_ones(bitfield) * piece_bytes, total_bytes)
    return Aria2Progress(total_bytes=total_bytes, complete_bytes=complete_bytes)


def _leading_ones(bitfield: bytes) -> int:
    """Return how many of the first bits are set, the highest bit of a byte first."""
    full = len(bitfield) - len(bitfield.lstrip(b"\xff"))
    next_byte = bitfield[full] if full < len(bitfield) else 0
    return full * 8 + f"{next_byte:08b}".index("0")


def _open_regular(path: str) -> int:
    """Open a file for reading, never anything that blocks or does something by being opened."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file")
    return fd


def _read_control(path: str) -> bytes | None:
    """Return a control file's content, None when there is none; one that is too long comes back cut.

    Raises: OSError.
    """
    try:
        fd = _open_regular(path)
    except FileNotFoundError:
        return None
    try:
        return os.pread(fd, _MAX_CONTROL_BYTES, 0)
    finally:
        os.close(fd)


def _first_hole(fd: int, size_bytes: int) -> int:
    return os.lseek(fd, 0, os.SEEK_HOLE) if size_bytes else 0


def _without_zeros(fd: int, end: int) -> int:
    """Return where the zeros begin that the first `end` bytes end with."""
    while end > 0:
        start = max(0, end - _BUFFER_BYTES)
        kept = len(os.pread(fd, end - start, start).rstrip(b"\0"))
        if kept:
            return start + kept
        end = start
    return 0


def _copy_by_reading(part_fd: int, foreign: ForeignPart, copied: int) -> int:
    while copied < foreign.good_bytes:
        content = memoryview(os.pread(foreign.fd, min(_BUFFER_BYTES, foreign.good_bytes - copied), copied))
        if not content:
            break
        while content:
            written = os.pwrite(part_fd, content, copied)
            content = content[written:]
            copied += written
    return copied


def _failure(path: str, error: OSError) -> TaskFailed:
    message = f"can't continue from {path}: {error.strerror or error}"
    match error.errno:
        case errno.EACCES | errno.EPERM:
            return TaskFailed(FailureCode.PERMISSION, message)
        case errno.EIO | errno.ESTALE:
            return TaskFailed(FailureCode.DISK, message)
        case _:
            return TaskFailed(FailureCode.FOLDER, message)
