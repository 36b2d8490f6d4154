"""Part files: choosing a name that is free, claiming its part file, writing, keeping, removing.

Runs as: the task's owner.  Talks to: the destination folder.
A worker holds flock on a part file for as long as it uses it, so a part file that can be locked is nobody's now:
it belongs to the task whose tag its control file carries, and without a valid control file to no one.
Invariants: no symlink is ever followed, no byte of another task's part file is ever used, and nothing that this
worker didn't create is written to, except the part file that carries the task's own tag.
How it fails: OSError, or TaskFailed with `conflict` or `file_busy`.
Known limits: on a file system without flock, only a part file that was just created can be claimed.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.task import OnConflict
from autodl_lib.contract.worker_messages import FileIdentity
from autodl_lib.worker.files.closing import close_quietly, flush
from autodl_lib.worker.files.control_file import CONTROL_BYTES, ControlFile, ControlRecord, NoPlace, remove_control
from autodl_lib.worker.files.file_name import control_name, is_part_name, numbered, part_name
from autodl_lib.worker.files.folder import Folder
from autodl_lib.worker.files.part_lock import is_in_use, is_named, lock, open_and_lock
from autodl_lib.worker.network.verdicts import TaskFailed

_MOST_CANDIDATES = 100_000
_ALWAYS_TRIED = 16
_MOST_SET_ASIDE = 100
"""Part files for one name, of tasks that failed or are paused, beside which another is begun."""
_ATTEMPTS_TO_CLAIM = 8
_END_OF_TIME_S = 2**33
"""No file is younger (2242): nanoseconds of later times do not fit what keeps them."""


class PartFile:
    """One part file, open, locked and ours."""

    def __init__(self, folder: Folder, name: str, fd: int, status: os.stat_result) -> None:
        self.folder = folder
        self.name = name
        self.fd = fd
        self._status = status
        self.saved: ControlRecord | None = None
        """What the control file says."""
        self._control: ControlFile | None = None
        self._is_damaged = False

    def adopt_control(self, control: ControlFile, record: ControlRecord) -> None:
        """Take over the control file that an earlier attempt left."""
        self._control = control
        self.saved = record

    def write(self, buffers: list[bytes], offset: int) -> None:
        """Write all buffers, one after the other, from `offset` on.

        Raises: OSError.
        """
        written = os.pwritev(self.fd, buffers, offset)
        if written == sum(map(len, buffers)):
            return
        rest = memoryview(b"".join(buffers))[written:]
        while rest:
            offset += written
            written = os.pwrite(self.fd, rest, offset)
            rest = rest[written:]

    def has(self, data: bytes, offset: int) -> bool:
        """Tell whether these bytes are in it, there.

        Raises: OSError.
        """
        return os.pread(self.fd, len(data), offset) == data

    def start_over(self, record: ControlRecord, *, durable: bool) -> None:
        """Forget every byte; a control file says so before the first one is overwritten.

        Raises: OSError.
        """
        if self._control is not None:
            self._control.write(record, durable=durable)
            self.saved = record
        os.ftruncate(self.fd, 0)

    def sync(self, fsync: Callable[[int], None] | None = None) -> None:
        """Bring every byte to the disk; once that has failed, it is never believed again. Runs in the sync thread.

        Raises: OSError.
        Source: fsync(2): after an error, the pages may count as clean though their bytes were lost.
        """
        if self._is_damaged:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        try:
            (fsync or os.fsync)(self.fd)
        except OSError:
            self._is_damaged = True
            raise

    def flush(self) -> None:
        """Hear of lost bytes, as far as the file system tells before it has synced.

        Raises: OSError.
        """
        flush(self.fd)

    def checkpoint(self, record: ControlRecord, *, durable: bool) -> None:
        """Make the bytes that `record` names safe, then say so in the control file. Runs in the sync thread.

        Where there can be no such file, nothing is saved: the download is none the worse for it.

        Raises: OSError.
        """
        if durable:
            self.sync()
        else:
            self.flush()
        with contextlib.suppress(NoPlace):
            if self._control is None:
                self._control, record = self._create_control(record)
            self._control.write(record, durable=durable)
            self.saved = record

    def _create_control(self, record: ControlRecord) -> tuple[ControlFile, ControlRecord]:
        """Return a new control file, and what of a record it can have; raises OSError, NoPlace."""
        name = control_name(self.name)
        try:
            return ControlFile.create(name, self.folder.fd), record
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        record = self._make_room(record)
        return ControlFile.create(name, self.folder.fd), record

    def _make_room(self, record: ControlRecord) -> ControlRecord:
        """Give up some bytes on a full disk, so that the control file can keep the others; returns what is left."""
        left = record.shortened(2 * CONTROL_BYTES)
        os.ftruncate(self.fd, left.end())
        return left

    def set_time(self, last_modified: str | None) -> None:
        """Give the file the time that an HTTP date says, where it makes sense.

        Raises: OSError.
        """
        parsed = email.utils.parsedate_tz(last_modified) if last_modified else None
        if parsed is None:
            return
        with contextlib.suppress(ValueError, OverflowError):
            seconds = email.utils.mktime_tz(parsed)
            if 0 <= seconds < _END_OF_TIME_S:
                os.utime(self.fd, (time.time(), seconds))

    def identity(self) -> FileIdentity:
        """Return what tells this file apart from every other of its folder."""
        return identity_of(os.fstat(self.fd))

    def drop_control(self) -> None:
        """Remove the control file, if there is one."""
        if self._control is not None:
            self._control.close()
            self._control = None
            self.saved = None
            _unlink_quietly(control_name(self.name), self.folder.fd)

    def is_in_place(self) -> bool:
        """Tell whether the part file's name still refers to it; its owner may have moved it."""
        return is_named(self.folder, self.name, self._status)

    def remove(self) -> None:
        """Remove part file and control file and let go of them."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.invalidate()
        if self.is_in_place():
            _unlink_quietly(self.name, self.folder.fd)
        self.drop_control()
        self.close()

    def close(self) -> None:
        """Let go of the part file; it stays for a later attempt. Never raises."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self.fd >= 0:
            close_quietly(self.fd)
            self.fd = -1  # even where that failed: the number may be another file's by now


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a task wants to save: a name, what to do when it is taken, and the tag that makes a part file its own.

    `is_exact`: another name is for a file alone that comes meanwhile, not for another task's part file.
    """

    name: str
    on_conflict: OnConflict
    tag: str
    is_exact: bool = False


def identity_of(status: os.stat_result) -> FileIdentity:
    """Return a file's identity from what stat says; a database's integers have 63 bits, some inodes 64."""
    return FileIdentity(inode=status.st_ino & (2**63 - 1), size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def check_not_taken(folder: Folder, claim: Claim) -> None:
    """Refuse what can't be published anyway.

    Raises: TaskFailed with `conflict`.
    """
    match claim.on_conflict:
        case OnConflict.FAIL if exists(folder, claim.name):
            raise TaskFailed(FailureCode.CONFLICT, f"{folder.join(claim.name)} exists already")
        case OnConflict.OVERWRITE if is_folder(folder, claim.name):
            raise TaskFailed(FailureCode.CONFLICT, f"{folder.join(claim.name)} is a folder and can't be overwritten")


def claim_part(folder: Folder, claim: Claim) -> tuple[str, PartFile]:
    """Return the final name to aim at and its part file, empty.

    Raises: TaskFailed, OSError.
    """
    check_not_taken(folder, claim)
    if claim.on_conflict is not OnConflict.RENAME or claim.is_exact:
        return claim.name, _claim_for(folder, claim)
    for name in candidates(folder, claim.name):
        part = _claim(folder, part_name(name), claim.tag)
        if part is not None:
            return name, part
    raise TaskFailed(FailureCode.CONFLICT, f"too many files are named like {folder.join(claim.name)}")


def _claim_for(folder: Folder, claim: Claim) -> PartFile:
    """Return a part file for exactly this name: another one where a task that isn't running keeps its own.

    Raises: TaskFailed with `file_busy` while a download to this name is running, OSError.
    """
    for name in (claim.name, *(f"{claim.name}~{number}" for number in range(1, _MOST_SET_ASIDE))):
        part = _claim(folder, part_name(name), claim.tag)
        if part is not None:
            return part
        if is_in_use(folder, part_name(name)):
            break
    raise TaskFailed(FailureCode.FILE_BUSY, f"another download is saving to {folder.join(claim.name)}")


def candidates(folder: Folder, name: str) -> Iterator[str]:
    """Yield `NAME`, `NAME.1.EXT`, ... as far as no file has that name now, or is about to have it in this process."""
    if _is_free(folder, name):
        yield name
    number = 0
    while number < _MOST_CANDIDATES:
        number += 1
        if number == _ALWAYS_TRIED:
            number = max(number, folder.number_hints.get(name, 0))
        candidate = numbered(name, number)
        if _is_free(folder, candidate):
            folder.number_hints[name] = number
            yield candidate


def reopen_part(folder: Folder, name: str, tag: str) -> tuple[PartFile, ControlRecord] | None:
    """Open the part file that an earlier attempt of this task left; None when it can't be continued."""
    part = _reopen(folder, name)
    if part is None:
        return None
    record = part.saved
    if record is not None and record.tag == tag and os.fstat(part.fd).st_size >= record.end():
        return part, record
    part.close()
    return None


def reopen_identical(folder: Folder, name: str, identity: FileIdentity) -> PartFile | None:
    """Open the complete part file that an earlier attempt had reported ready; None when it is not there."""
    part = _reopen(folder, name)
    if part is None:
        return None
    if part.identity() != identity:
        part.close()
        return None
    if part.saved is None:
        with contextlib.suppress(OSError):
            remove_control(control_name(name), folder.fd)
    return part


def _reopen(folder: Folder, name: str) -> PartFile | None:
    """Open a part file that is there, with its control file where it has one.

    Raises: OSError.
    """
    fd = open_and_lock(folder, name) if is_part_name(name) else None
    if fd is None:
        return None
    part = PartFile(folder, name, fd, os.fstat(fd))
    try:
        found = ControlFile.open(control_name(name), folder.fd)
    except OSError:
        part.close()
        raise
    if found is not None:
        part.adopt_control(*found)
    return part


def discard_part(folder: Folder, name: str, tag: str) -> None:
    """Remove a part file that is no longer wanted, and its control file, unless they are another's."""
    if not is_part_name(name):
        return
    control = control_name(name)
    found = ControlFile.open(control, folder.fd)
    if found is not None:
        found[0].close()
        if found[1].tag != tag:
            return
    fd = open_and_lock(folder, name)
    if fd is None:
        if found is not None and not exists(folder, name):
            _unlink_quietly(control, folder.fd)
        return
    with contextlib.suppress(OSError):
        remove_control(control, folder.fd)
    _unlink_quietly(name, folder.fd)
    os.close(fd)


def _claim(folder: Folder, name: str, tag: str) -> PartFile | None:
    """Create the part file `name`, in place of an abandoned one if need be; None when it is another's."""
    for _ in range(_ATTEMPTS_TO_CLAIM):
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            fd = os.open(name, flags, 0o666, dir_fd=folder.fd)
        except FileExistsError:
            if not clear_abandoned(folder, name, tag):
                return None
            continue
        try:
            status = os.fstat(fd) if lock(fd, unsupported=True) else None
            if status is not None and status.st_nlink > 0:  # nobody took it for abandoned before it was locked
                remove_control(control_name(name), folder.fd)
                return PartFile(folder, name, fd, status)
        except OSError:
            _unlink_quietly(name, folder.fd)
            os.close(fd)  # else it would be in its own way, locked, as long as this process lives
            raise
        os.close(fd)
    return None


def clear_abandoned(folder: Folder, name: str, tag: str) -> bool:
    """Unlink a part file that nobody uses or waits for, with its control file; False for another's."""
    fd = open_and_lock(folder, name)
    if fd is None:
        return not exists(folder, name)
    try:
        found = ControlFile.open(control_name(name), folder.fd)
        if found is not None:
            found[0].close()
            if found[1].tag != tag:
                return False
            remove_control(control_name(name), folder.fd)
        os.unlink(name, dir_fd=folder.fd)
    finally:
        os.close(fd)
    return True


def _is_free(folder: Folder, name: str) -> bool:
    """Tell whether nothing seems to have this name, or soon will; who gives it to a file finds out for certain."""
    return name not in folder.aimed_at and not os.access(name, os.F_OK, dir_fd=folder.fd, follow_symlinks=False)


def exists(folder: Folder, name: str) -> bool:
    """Tell whether anything has this name, a dangling symlink too."""
    try:
        os.stat(name, dir_fd=folder.fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def is_folder(folder: Folder, name: str) -> bool:
    """Tell whether a name is a folder's."""
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder.fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _unlink_quietly(name: str, dir_fd: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=dir_fd)
