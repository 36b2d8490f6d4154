"""The destination folder, held open: every file operation of a task is relative to this descriptor.

Runs as: the task's owner, with exactly the owner's rights.  Talks to: the file system.
Invariants: a folder once opened stays the same folder whatever is renamed above it; only the way to it may lead
through symlinks, which are the owner's own affair.
How it fails: TaskFailed with `folder` or `permission`, in a sentence that names the path.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pwd  # noqa: F401  (os.path.expanduser imports it when a worker can no longer read Python's folders)
import time
from collections.abc import Callable

from autodl_lib.contract.failures import FailureCode
from autodl_lib.worker.network.verdicts import TaskFailed, Verdict, os_verdict

_syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


DESCRIPTORS = "/proc/self/fd"
"""The way from a descriptor of this process to its file."""
_UNKNOWN_BYTES = 1 << 62
_OTHERS_WRITE_BYTES = 1 << 30
_LOOKED_S = 0.01
"""So long, what was seen of a folder is believed: many small files are saved in that time."""


class Folder:
    """One open folder; closed when the last user lets go of it."""

    def __init__(self, path: str, fd: int, *, readable: bool) -> None:
        self.fd = fd  # first of all: whatever fails, it is closed
        status = os.fstat(fd)
        self.path = path
        self.key = (status.st_dev, status.st_ino)
        self.number_hints: dict[str, int] = {}
        """For a name that is often taken: the number last given out."""
        self.aimed_at: set[str] = set()
        """Names that unnamed files of this process are to have; see unnamed_file."""
        self.has_taken_names = False
        """Whether one of those was taken: the next ones are looked at before."""
        self.takes_unnamed = os.path.exists(DESCRIPTORS)
        """Whether its file system has files without a name, as far as is known."""
        self._readable = readable
        self._plenty_bytes = 0
        self._plenty_until_mono = 0.0

    def __del__(self) -> None:
        os.close(self.fd)

    def join(self, name: str) -> str:
        """Return the absolute path of a name in this folder."""
        return f"/{name}" if self.path == "/" else f"{self.path}/{name}"

    def path_now(self) -> str:
        """Return where this folder is now: it may have been renamed.

        Raises: FileNotFoundError where no path leads to it any more: removed, or on a file system that was detached.
        """
        if self.still_at(self.path):
            return self.path
        try:
            path = os.readlink(f"{DESCRIPTORS}/{self.fd}")
            path.encode()
        except (OSError, UnicodeError):
            return self.path
        try:
            is_there = self._is_at(path)
        except PermissionError:
            return path
        if not is_there:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return path

    def explain(self, verdict: Verdict) -> Verdict:
        """Return what a failure is that came of this folder's removal: the next attempt makes the folder again."""
        if verdict.code is not FailureCode.FOLDER or os.fstat(self.fd).st_nlink > 0:
            return verdict
        return Verdict(code=FailureCode.FILE_BUSY, message=f"someone removed the folder {self.path} meanwhile")

    def sync(self, file_fd: int) -> None:
        """Make the names in this folder survive a power cut; `file_fd` is any open file of the folder.

        Raises: OSError.
        """
        if self._readable:
            os.fsync(self.fd)
        elif _syncfs is not None and _syncfs(file_fd) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def free_bytes(self) -> int:
        """Return what the owner can still write to this folder's file system.

        Raises: OSError.
        """
        status = os.statvfs(self.fd)
        # Without blocks, it is no file system that keeps files: it will say itself what it thinks of one.
        free = _UNKNOWN_BYTES if status.f_blocks == 0 else status.f_bavail * status.f_frsize
        self._plenty_bytes = free - _OTHERS_WRITE_BYTES
        self._plenty_until_mono = time.monotonic() + _LOOKED_S
        return free

    def had_plenty(self, needed_bytes: int) -> bool:
        """Tell whether `free_bytes` of a moment ago was so much more that it is enough, whatever others write."""
        if needed_bytes > self._plenty_bytes or time.monotonic() >= self._plenty_until_mono:
            return False
        self._plenty_bytes -= max(0, needed_bytes)
        return True

    def size_of(self, name: str) -> int:
        """Return the size of a file in this folder, 0 where there is none."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_size
        except OSError:
            return 0

    def still_at(self, path: str) -> bool:
        """Tell whether a path still leads to this folder."""
        try:
            return path == self.path and self._is_at(path)
        except PermissionError:
            return False

    def _is_at(self, path: str) -> bool:
        """Tell whether a path leads to this folder.

        Raises: PermissionError.
        """
        try:
            status = os.stat(path)
        except PermissionError:
            raise
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self.key


class OtherFolder(Exception):
    """This worker is confined to another folder than the one that is there now."""


class Folders:
    """Opens folders, and keeps the last one open for the next task.

    `confine` takes from this process all writing outside of the first folder that it opens.
    """

    def __init__(self, confine: Callable[[int], None] | None = None) -> None:
        self.has_moved = False
        """Whether another folder has come into the place of the one that this worker is confined to."""
        self._confine = confine
        self._own: tuple[int, int] | None = None
        self._last: Folder | None = None
        self._last_asked = ""
        self._looked_mono = 0.0

    def look_again(self) -> None:
        """Let the next `open` see what is there: who ordered it may know of a change."""
        self._last_asked = ""

    def open(self, path: str, *, create: bool = True) -> Folder:
        """Return the open folder at `path`, which may begin with `~`; makes it, with its parents, if missing.

        Raises: TaskFailed, OtherFolder.
        """
        now = time.monotonic()
        if self._last is not None and path == self._last_asked and now < self._looked_mono + _LOOKED_S:
            return self._last
        full = os.path.expanduser(path)
        if not os.path.isabs(full) or "\0" in full:
            raise TaskFailed(FailureCode.FOLDER, f"the folder must be an absolute path: {path[:300]!r}")
        full = full.rstrip("/") or "/"
        if self._last is None or not self._last.still_at(full):
            self._last = self._enter(full, create)
        self._last_asked, self._looked_mono = path, now
        return self._last

    def _enter(self, path: str, create: bool) -> Folder:
        if self._confine is None:
            return _open(path, create=create)
        if self._own is None:
            folder = _open(path, create=create)
            self._confine(folder.fd)
            self._own = folder.key
        elif os.path.isdir(path):
            folder = _open(path, create=False)
            self.has_moved = folder.key != self._own
        else:
            self.has_moved = True  # a folder is made by a worker that is free to
        if self.has_moved:
            raise OtherFolder(path)
        return folder


def _open(path: str, *, create: bool) -> Folder:
    try:
        if create:
            _make(path)
        try:
            return Folder(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY), readable=True)
        except PermissionError:
            return Folder(path, os.open(path, os.O_PATH | os.O_DIRECTORY), readable=False)
    except OSError as error:
        raise _failure(path, error) from None


def _make(path: str) -> None:
    """Make a folder with its parents, each of them safe from a power cut as far as its parent may be opened.

    Raises: OSError.
    """
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    _make(parent)
    with contextlib.suppress(FileExistsError):  # as a file, it will not open
        os.mkdir(path, 0o777)
    with contextlib.suppress(PermissionError):
        fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _failure(path: str, error: OSError) -> TaskFailed:
    match error.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            reason = os.strerror(error.errno)
            return TaskFailed(FailureCode.PERMISSION, f"no permission to use the folder {path}: {reason}")
        case errno.EEXIST | errno.ENOTDIR:
            return TaskFailed(FailureCode.FOLDER, f"{path} is not a folder")
        case errno.ENOSPC | errno.EDQUOT:
            return TaskFailed(FailureCode.DISK_FULL, f"could not make the folder {path}: no space left")
        case _:
            verdict = os_verdict(error, f"open the folder {path}")
            passes = verdict.code is FailureCode.RESOURCES
            return TaskFailed(verdict.code if passes else FailureCode.FOLDER, verdict.message)
