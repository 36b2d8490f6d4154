"""Giving a complete part file its final name, atomically, and recognising that this has been done.

Runs as: the task's owner.  Talks to: the destination folder.
Invariants: an existing file is replaced only where the task says `overwrite`; at every moment the final name is
absent, another's, or the complete file. The folder is synced afterwards by whoever calls.
Source: link(2), renameat2(2).
Known limits: where neither RENAME_NOREPLACE nor link works, an empty file has the final name for an instant.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.task import OnConflict
from autodl_lib.contract.worker_messages import FileIdentity
from autodl_lib.worker.files.control_file import MAY_PASS
from autodl_lib.worker.files.file_name import control_name, is_part_name
from autodl_lib.worker.files.folder import Folder
from autodl_lib.worker.files.part_file import PartFile, candidates, identity_of, is_folder
from autodl_lib.worker.network.verdicts import TaskFailed

_RENAME_NOREPLACE = 1
_NO_SUCH_RENAME = frozenset({errno.EINVAL, errno.ENOSYS})
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def place(part: PartFile, name: str, on_conflict: OnConflict, *, wanted: str) -> str | None:
    """Give the part file its final name; returns None when done, or the name to try next when it is taken.

    The next one is like `wanted`, of which `name` may be the third already.

    Raises: TaskFailed, OSError.
    """
    if not part.is_in_place():
        raise TaskFailed(FailureCode.FILE_BUSY, f"someone moved {part.folder.join(part.name)} away")
    if on_conflict is OnConflict.OVERWRITE:
        _replace(part, name)
    elif not _give_new_name(part, name):
        if on_conflict is OnConflict.FAIL:
            raise TaskFailed(FailureCode.CONFLICT, f"{part.folder.join(name)} exists already")
        return next(candidates(part.folder, wanted))
    part.drop_control()
    return None


def finish_published(folder: Folder, name: str, part: str | None, identity: FileIdentity) -> bool:
    """Complete what an earlier attempt began: True when `name` is that file, and nothing of the part is left.

    Raises: OSError.
    """
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder.fd)
    except OSError as error:
        if error.errno in MAY_PASS:
            raise  # taken for absent, it would be downloaded again under another name
        return False
    try:
        if identity_of(os.fstat(fd)) != identity:
            return False
        if part is not None and is_part_name(part):
            _unlink_same(folder, part, fd)
        folder.sync(fd)
    finally:
        os.close(fd)
    return True


def _replace(part: PartFile, name: str) -> None:
    fd = part.folder.fd
    try:
        os.rename(part.name, name, src_dir_fd=fd, dst_dir_fd=fd)
    except OSError as error:
        # A worker that is confined to the folder hears of another folder's place that it may not.
        if not isinstance(error, IsADirectoryError | PermissionError) or not is_folder(part.folder, name):
            raise
        message = f"{part.folder.join(name)} is a folder and can't be overwritten"
        raise TaskFailed(FailureCode.CONFLICT, message) from None


def _give_new_name(part: PartFile, name: str) -> bool:
    """Publish without replacing anything; False when the name is taken."""
    for way in (_rename_to_new, _link):
        is_given = way(part, name)
        if is_given is not None:
            return is_given
    fd = part.folder.fd
    try:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=fd))
    except FileExistsError:
        return False
    os.rename(part.name, name, src_dir_fd=fd, dst_dir_fd=fd)
    return True


def _rename_to_new(part: PartFile, name: str) -> bool | None:
    """Rename, in one step of the file system; None where it can't do that."""
    if _renameat2 is None:
        return None
    fd = part.folder.fd
    if _renameat2(fd, os.fsencode(part.name), fd, os.fsencode(name), _RENAME_NOREPLACE) == 0:
        return True
    error = ctypes.get_errno()
    if error == errno.EEXIST:
        return False
    if error not in _NO_SUCH_RENAME:
        raise OSError(error, os.strerror(error))
    return None


def _link(part: PartFile, name: str) -> bool | None:
    """Give the file a second name and take away the first; None where there are no second names."""
    fd = part.folder.fd
    try:
        os.link(part.name, name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return None
    with contextlib.suppress(OSError):  # it is published; a second name does no harm
        os.unlink(part.name, dir_fd=fd)
    return True


def _unlink_same(folder: Folder, part: str, fd: int) -> None:
    """Remove the part file's name, if it is a second name of the published file, and the control file."""
    try:
        if not os.path.samestat(os.stat(part, dir_fd=folder.fd, follow_symlinks=False), os.fstat(fd)):
            return
        os.unlink(part, dir_fd=folder.fd)
    except FileNotFoundError:
        pass
    with contextlib.suppress(FileNotFoundError):
        os.unlink(control_name(part), dir_fd=folder.fd)
