"""The control file beside a part file: which bytes are safely on disk, and of which remote version.

Runs as: the task's owner.  Talks to: the control file.
Two slots of 16 KiB are written in turn, each one line of JSON with a sequence number and a checksum; the valid
slot of the highest number counts, so a write that a crash tears costs one checkpoint, never the file.
Invariants: a slot is written only after the bytes that it names were synced; it holds no URL and no secret;
anything malformed is the same as no control file. Never follows a symlink. What a control file says is gone from the
disk before another part file has the name of its own.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import zlib
from dataclasses import dataclass, replace

from autodl_lib.contract.codec import loads
from autodl_lib.contract.errors import ParseError
from autodl_lib.worker.files.closing import close_quietly
from autodl_lib.worker.network.response import RemoteVersion

SLOT_BYTES = 16384
_SLOTS = 2
CONTROL_BYTES = SLOT_BYTES * _SLOTS
_MAX_RANGES = 256
_MAX_BYTES = 2**63
_KEYS = {"seq", "tag", "size", "etag", "last_modified", "ranges", "crc"}

MAY_PASS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EINTR, errno.EAGAIN, errno.ENOBUFS, errno.EROFS}
    | {errno.ENOSPC, errno.EDQUOT}  # an overlay copies a file that is opened for writing
)
"""Errors that tell nothing about a file: what can't be opened for one of these is there all the same."""

_STAYS = frozenset({errno.EPERM, errno.EISDIR})
"""What unlink says of another user's file in a sticky folder, and of a folder."""

Ranges = tuple[tuple[int, int], ...]
"""Half-open byte ranges, ascending, apart from each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRecord:
    """What one slot says. `tag` names the task that the part file belongs to."""

    tag: str
    version: RemoteVersion
    ranges: Ranges

    def bytes_done(self) -> int:
        """Return how many bytes are safely in the part file."""
        return sum(end - start for start, end in self.ranges)

    def end(self) -> int:
        """Return the length that the part file has at least."""
        return self.ranges[-1][1] if self.ranges else 0

    def shortened(self, size_bytes: int) -> ControlRecord:
        """Return the record of a part file that has lost so many bytes at its end."""
        last = self.end() - size_bytes
        return replace(self, ranges=tuple([(start, min(end, last)) for start, end in self.ranges if start < last]))

    def is_complete(self) -> bool:
        """Tell whether every byte of the file is there."""
        size = self.version.size
        return size is not None and (self.ranges == ((0, size),) or size == 0)


def encode_slot(record: ControlRecord, sequence: int) -> bytes:
    """Return one slot's content."""
    body = {
        "seq": sequence,
        "tag": record.tag,
        "size": record.version.size,
        "etag": record.version.etag,
        "last_modified": record.version.last_modified,
        "ranges": [list(pair) for pair in record.ranges],
    }
    if record.version.coding:
        body["coding"] = record.version.coding
    body["crc"] = _checksum(body)
    line = json.dumps(body, separators=(",", ":")).encode("ascii")
    if len(line) >= SLOT_BYTES:
        raise ValueError("the control record does not fit its slot")
    return line.ljust(SLOT_BYTES - 1) + b"\n"


def decode_slots(content: bytes) -> tuple[ControlRecord, int] | None:
    """Return the newest valid slot's record and sequence number, or None."""
    found: tuple[ControlRecord, int] | None = None
    for start in range(0, CONTROL_BYTES, SLOT_BYTES):
        slot = _decode_slot(content[start : start + SLOT_BYTES])
        if slot is not None and (found is None or slot[1] > found[1]):
            found = slot
    return found


def _decode_slot(content: bytes) -> tuple[ControlRecord, int] | None:
    try:
        body = loads(content)
    except ParseError:
        return None
    if not isinstance(body, dict) or body.keys() - {"coding"} != _KEYS:
        return None
    crc = body.pop("crc")
    if type(crc) is not int or crc != _checksum(body):
        return None
    texts = (body["etag"], body["last_modified"])
    if not isinstance(body["tag"], str) or not all(text is None or isinstance(text, str) for text in texts):
        return None
    coding = body.get("coding", "")
    if not isinstance(coding, str):
        return None
    ranges = _decode_ranges(body["ranges"])
    if not _is_count(body["seq"]) or not (body["size"] is None or _is_count(body["size"])) or ranges is None:
        return None
    version = RemoteVersion(size=body["size"], etag=body["etag"], last_modified=body["last_modified"], coding=coding)
    if version.size is not None and ranges and ranges[-1][1] > version.size:
        return None
    return ControlRecord(tag=body["tag"], version=version, ranges=ranges), int(body["seq"])


def _decode_ranges(value: object) -> Ranges | None:
    if not isinstance(value, list) or len(value) > _MAX_RANGES:
        return None
    ranges: list[tuple[int, int]] = []
    floor = -1
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2 or not all(_is_count(item) for item in pair):
            return None
        if pair[0] <= floor or pair[1] <= pair[0]:
            return None
        ranges.append((pair[0], pair[1]))
        floor = pair[1]
    return tuple(ranges)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MAX_BYTES


def _checksum(body: dict[str, object]) -> int:
    return zlib.crc32(json.dumps(body, separators=(",", ":"), sort_keys=True).encode("ascii"))


class NoPlace(Exception):
    """Somebody else's file, or a folder, has a control file's name: what such a file would keep is not kept."""


class ControlFile:
    """One control file, open. Its owner holds the lock of the part file that it belongs to."""

    def __init__(self, fd: int, sequence: int) -> None:
        self._fd = fd
        self._sequence = sequence

    @classmethod
    def create(cls, name: str, dir_fd: int) -> ControlFile:
        """Make a new one in place of whatever has the name.

        Raises: OSError; NoPlace where what has the name can't be removed.
        """
        try:
            os.unlink(name, dir_fd=dir_fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in _STAYS:
                raise NoPlace(name) from None
            raise
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            fd = os.open(name, flags, 0o600, dir_fd=dir_fd)
        except FileExistsError:
            raise NoPlace(name) from None  # somebody was quicker
        try:
            _write_all(fd, b" " * CONTROL_BYTES, 0)  # a disk that fills up later must not stop a checkpoint
        except OSError:
            os.close(fd)
            os.unlink(name, dir_fd=dir_fd)
            raise
        return cls(fd, 0)

    @classmethod
    def open(cls, name: str, dir_fd: int) -> tuple[ControlFile, ControlRecord] | None:
        """Open the one that an earlier attempt left, with what it says; None when there is none that is valid.

        Raises: OSError when that can't be told now.
        """
        try:
            fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=dir_fd)
        except OSError as error:
            if error.errno in MAY_PASS:
                raise
            return None
        try:
            content = _read_regular(fd)
        except OSError:
            content = b""
        found = decode_slots(content)
        if found is None:
            os.close(fd)
            return None
        record, sequence = found
        return cls(fd, sequence), record

    def write(self, record: ControlRecord, *, durable: bool) -> None:
        """Write the next slot.

        Raises: OSError.
        """
        self._sequence += 1
        content = encode_slot(record, self._sequence)
        start = (self._sequence % _SLOTS) * SLOT_BYTES
        _write_all(self._fd, content, start)
        if durable:
            os.fdatasync(self._fd)

    def invalidate(self) -> None:
        """Make it say nothing any more, for good: a power cut may undo its removal, and not this.

        Raises: OSError.
        """
        os.ftruncate(self._fd, 0)
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Let go of the file; it stays where it is. Never raises: one that says something else is found invalid."""
        close_quietly(self._fd)


def remove_control(name: str, dir_fd: int) -> None:
    """Remove a control file, if there is one, so that no power cut brings back what it said.

    Raises: OSError.
    """
    try:
        fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno in MAY_PASS:
            raise
        _unlink_what_says_nothing(name, dir_fd)  # a symlink, a folder, another user's
        return
    try:
        if _is_ours(os.fstat(fd)):
            ControlFile(fd, 0).invalidate()
            os.unlink(name, dir_fd=dir_fd)
        else:
            _unlink_what_says_nothing(name, dir_fd)
    finally:
        os.close(fd)


def _unlink_what_says_nothing(name: str, dir_fd: int) -> None:
    """Remove what is in a control file's place, if that is allowed: whoever put it there must not be in the way."""
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=dir_fd)


def _write_all(fd: int, content: bytes, offset: int) -> None:
    if os.pwrite(fd, content, offset) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _read_regular(fd: int) -> bytes:
    return os.pread(fd, CONTROL_BYTES, 0) if _is_ours(os.fstat(fd)) else b""


def _is_ours(status: os.stat_result) -> bool:
    """Tell whether it can be a control file: one with a second name is somebody's file, whoever made that name."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1
