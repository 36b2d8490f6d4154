"""What a task makes of the file that has its name already: `--if-newer` and `--continue-from`.

Runs as: the task's owner.  Talks to: the destination folder.
Invariants: only a file that the task itself names as its own concern is replaced.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from email.utils import formatdate

from autodl_lib.contract.task import OnConflict
from autodl_lib.contract.worker_messages import Assign
from autodl_lib.worker.files.file_name import FALLBACK_NAME, name_from_url
from autodl_lib.worker.files.folder import Folder


def with_conditions(assign: Assign, folder: Folder) -> tuple[Assign, str | None]:
    """Return the assignment as it is to be understood, and the HTTP date of the file that is there, if that counts.

    What is newer than a file replaces it. A part to continue from may have the final name (curl and wget write
    there); the complete file then takes its place.
    """
    options = assign.options
    if not options.if_newer and options.continue_from is None:
        return assign, None
    name = assign.output or name_from_url(assign.url) or FALLBACK_NAME
    present = _stat(name, folder.fd)
    if options.if_newer:
        named = replace(assign, output=name)
        if present is None or not stat.S_ISREG(present.st_mode):
            return named, None
        return replace(named, on_conflict=OnConflict.OVERWRITE), _http_date(present.st_mtime)
    try:
        other = os.stat(os.path.expanduser(options.continue_from or ""))
    except OSError:
        return assign, None
    if present is not None and os.path.samestat(present, other):
        return replace(assign, output=name, on_conflict=OnConflict.OVERWRITE), None
    return assign, None


def _http_date(at: float) -> str | None:
    """Return a time as HTTP writes it, None for one of a year that HTTP can't write: some file systems have such."""
    try:
        return formatdate(int(at), usegmt=True)
    except (ValueError, OverflowError, OSError):
        return None


def _stat(name: str, folder_fd: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except OSError:
        return None
