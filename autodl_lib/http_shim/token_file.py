"""The token that callers prove themselves by: made at first start, read from a file that others can't read.

Runs as: an unprivileged account.  Talks to: the file system.
Security: 256 random bits in a file of mode 0600, which appears whole or not at all. A file that others may read or
write, or that is another user's, is refused, never repaired. Its group may read it: so a token is shared with programs.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, field

from autodl_lib.client.locate import make_private, private_folders
from autodl_lib.contract.errors import BadSettings, NotAllowed

TOKEN_BYTES = 32
NAME = "http-token"

_MAX_FILE_BYTES = 4096
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/=-]{32,1024}")
"""Source: RFC 6750, section 2.1; no shorter than 32 characters, since it is all that keeps others out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What callers prove themselves by, and the path of its file."""

    path: str
    text: bytes = field(repr=False)


def load_token(path: str | None) -> Token:
    """Return the token; make it, and its file, where there is none.

    Raises: NotAllowed, BadSettings.
    """
    if path is None:
        folder = private_folders().state_dir
        make_private(folder)
        path = os.path.join(folder, NAME)
    path = os.path.abspath(path)
    try:
        if not os.path.exists(path):
            _make(path)
        return Token(path=path, text=_read(path))
    except OSError as error:
        raise BadSettings(f"can't use the token's file {path}: {error.strerror}") from None


def _make(path: str) -> None:
    """Write a new token; of two that do so at the same time, the first one counts."""
    fresh = f"{path}.{secrets.token_hex(8)}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(secrets.token_urlsafe(TOKEN_BYTES).encode("ascii") + b"\n")
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        os.unlink(fresh)


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BadSettings(f"the token's file {path} is no regular file")
        if found.st_uid not in (0, os.geteuid()):
            raise NotAllowed(f"the token's file {path} belongs to uid {found.st_uid}, neither to you nor to root")
        if stat.S_IMODE(found.st_mode) & 0o027:
            raise NotAllowed(f"the token's file {path} is open to other users: run `chmod 600 {path}`, then try again")
        token = file.read(_MAX_FILE_BYTES).strip()
    if not _TOKEN.fullmatch(token):
        raise BadSettings(f"there is no token of 32 or more letters and digits in {path}: remove it, and one is made")
    return token
