"""A small file on its way to its name: in the folder's file system, but in no folder until it is given one.

Runs as: the task's owner.  Talks to: the destination folder.
A part file takes two changes of its folder, and a lock; this takes one change and none, and whoever dies with it leaves
nothing behind. What can't be gone on with needs no more: it is complete in a moment, or fetched anew.
Invariants: a name is given to the complete file, in one step of the file system, and never to another's place.
How it fails: OSError; `takes_unnamed` of the folder says whether its file system has such files.
Source: open(2), O_TMPFILE; link(2); proc(5), /proc/PID/fd.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.worker_messages import FileIdentity
from autodl_lib.worker.files.closing import close_quietly, flush
from autodl_lib.worker.files.folder import DESCRIPTORS, Folder
from autodl_lib.worker.files.part_file import candidates, exists, identity_of
from autodl_lib.worker.files.publish import NO_LINKS
from autodl_lib.worker.network.verdicts import TaskFailed

_NO_UNNAMED = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.ENOSYS})


class UnnamedFile:
    """One such file, and the name that it is to have."""

    def __init__(self, folder: Folder, wanted: str, name: str, fd: int) -> None:
        """`name` is what it will have, as far as is known: `wanted`, or like that where that is taken."""
        self.folder = folder
        self.name = name
        self.fd = fd
        self._wanted = wanted

    def write(self, pieces: list[bytes]) -> None:
        """Write the whole file.

        Raises: OSError.
        """
        size_bytes = sum(map(len, pieces))
        if os.pwritev(self.fd, pieces, 0) != size_bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def sync(self, fsync: Callable[[int], None]) -> None:
        """Bring every byte to the disk. Runs in the sync thread.

        Raises: OSError.
        """
        fsync(self.fd)

    def flush(self) -> None:
        """Hear of lost bytes, as far as the file system tells before it has synced.

        Raises: OSError.
        """
        flush(self.fd)

    def identity(self) -> FileIdentity:
        """Return what tells this file apart from every other of its folder."""
        return identity_of(os.fstat(self.fd))

    def give_name(self) -> bool:
        """Give the file its name; False when that is taken, and another was chosen.

        Raises: TaskFailed, OSError.
        """
        folder = self.folder
        try:
            os.link(f"{DESCRIPTORS}/{self.fd}", self.name, dst_dir_fd=folder.fd)
        except FileExistsError:
            folder.has_taken_names = True
            name = _name_like(folder, self._wanted)
            folder.aimed_at.discard(self.name)
            folder.aimed_at.add(name)
            self.name = name
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            folder.takes_unnamed = False
            words = f"{folder.path} takes no names for unnamed files; it goes another way next time"
            raise TaskFailed(FailureCode.RESOURCES, words) from None
        return True

    def close(self) -> None:
        """Let go of the file, and of its name as far as others may aim at that now.

        Never raises: a file that is kept was synced or flushed before.
        """
        self.folder.aimed_at.discard(self.name)
        close_quietly(self.fd)
        self.fd = -1


def open_unnamed(folder: Folder, name: str) -> UnnamedFile | None:
    """Return a file that is to be `name`, or like it where that is taken; None where there are no such files.

    Raises: TaskFailed, OSError.
    """
    if not folder.takes_unnamed:
        return None
    wanted = name
    if name in folder.aimed_at or (folder.has_taken_names and exists(folder, name)):
        name = _name_like(folder, wanted)
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o666, dir_fd=folder.fd)
    except OSError as error:
        if error.errno not in _NO_UNNAMED:
            raise
        folder.takes_unnamed = False
        return None
    folder.aimed_at.add(name)
    return UnnamedFile(folder, wanted, name, fd)


def _name_like(folder: Folder, name: str) -> str:
    """Return a name like `name` that no file has and nobody in this process aims at.

    Raises: TaskFailed.
    """
    for candidate in candidates(folder, name):
        return candidate
    raise TaskFailed(FailureCode.CONFLICT, f"too many files are named like {folder.join(name)}")
