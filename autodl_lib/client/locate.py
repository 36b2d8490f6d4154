"""Which socket a client talks to, and the folders of the private daemon.

Runs as: the caller.  Talks to: the file system (stat and mkdir), the environment.
Order: an explicit path, $AUTODL_SOCKET, the system daemon's socket if it is there, the private daemon's.
Security: a private folder must be a real folder of the caller's that nobody else can enter; anything
else is refused, never repaired. $XDG_RUNTIME_DIR of another user (as `su` leaves it) counts as unset.
"""

from __future__ import annotations

import contextlib
import os
import stat
from enum import StrEnum

from autodl_lib.contract.errors import InvalidParams, NotAllowed
from autodl_lib.contract.light_dataclass import dataclass

SYSTEM_SOCKET = "/run/autodl/autodl.sock"
SOCKET_NAME = "autodl.sock"
MAX_SOCKET_PATH_BYTES = 107
"""Source: unix(7): sun_path has 108 bytes, a null byte included."""


class Origin(StrEnum):
    """Where a socket's path came from; it decides what is done when nobody listens there."""

    EXPLICIT = "explicit"
    ENVIRONMENT = "environment"
    SYSTEM = "system"
    PRIVATE = "private"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A socket to connect to."""

    socket: str
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateFolders:
    """Where the caller's private daemon lives; `socket_dir` differs from `runtime_dir` only if that is too long."""

    runtime_dir: str
    socket_dir: str
    state_dir: str

    @property
    def socket(self) -> str:
        return os.path.join(self.socket_dir, SOCKET_NAME)


def locate(explicit: str | None) -> Place:
    """Return the socket to use.

    Raises: InvalidParams where a given path can't be a socket's.
    """
    if explicit is not None:
        return Place(socket=_checked(explicit, "--socket"), origin=Origin.EXPLICIT)
    from_environment = os.environ.get("AUTODL_SOCKET")
    if from_environment:
        return Place(socket=_checked(from_environment, "$AUTODL_SOCKET"), origin=Origin.ENVIRONMENT)
    if os.path.exists(SYSTEM_SOCKET):
        return Place(socket=SYSTEM_SOCKET, origin=Origin.SYSTEM)
    return Place(socket=private_folders().socket, origin=Origin.PRIVATE)


def private_folders() -> PrivateFolders:
    """Name the private daemon's folders; nothing is made yet."""
    state_dir = _state_dir()
    runtime_dir = _runtime_dir(state_dir)
    socket_dir = runtime_dir
    if len(os.fsencode(os.path.join(runtime_dir, SOCKET_NAME))) > MAX_SOCKET_PATH_BYTES:
        socket_dir = f"/tmp/autodl-{os.geteuid()}"  # noqa: S108 - used only when it is ours alone (check_private)
    return PrivateFolders(runtime_dir=runtime_dir, socket_dir=socket_dir, state_dir=state_dir)


def make_private(folder: str) -> None:
    """Make a folder that only the caller can enter, or check that it is one.

    Raises: NotAllowed, with what to do about it.
    """
    try:
        _make_with_parents(folder)
        check_private(folder)
    except OSError as error:
        raise NotAllowed(
            f"can't make the folder {folder}: {error.strerror};"
            " set XDG_RUNTIME_DIR and XDG_STATE_HOME to folders of yours"
        ) from None


def check_private(folder: str) -> None:
    """Refuse a folder that another user could have put there or can look into.

    Raises: NotAllowed, OSError where it is not there.
    """
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise NotAllowed(f"{folder} is not a folder (a symbolic link is not followed): move it away, then try again")
    if found.st_uid != os.geteuid():
        raise NotAllowed(f"{folder} belongs to uid {found.st_uid}, not to you: move it away, then try again")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise NotAllowed(f"{folder} is open to other users: run `chmod 700 {folder}`, then try again")


def _checked(path: str, source: str) -> str:
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH_BYTES:
        raise InvalidParams(
            f"{source}: the path of a socket has at most {MAX_SOCKET_PATH_BYTES} bytes, this one has {size}: {path}"
        )
    if not path or "\0" in path:
        raise InvalidParams(f"{source}: the path of a socket must not be empty or hold a null character")
    return path


def _state_dir() -> str:
    base = _absolute("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "autodl")


def _runtime_dir(state_dir: str) -> str:
    base = _absolute("XDG_RUNTIME_DIR")
    if base and _usable(base):
        return os.path.join(base, "autodl")
    uid = os.geteuid()
    by_uid = f"/run/user/{uid}"
    try:
        found = os.lstat(by_uid)
    except OSError:
        return os.path.join(state_dir, "run")
    if stat.S_ISDIR(found.st_mode) and found.st_uid == uid:
        return os.path.join(by_uid, "autodl")
    return os.path.join(state_dir, "run")


def _absolute(variable: str) -> str | None:
    # Source: XDG Base Directory Specification: a relative path in these variables is to be ignored.
    value = os.environ.get(variable, "")
    return value if value.startswith("/") else None


def _usable(base: str) -> bool:
    try:
        found = os.stat(base)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return found.st_uid in (0, os.geteuid()) and os.access(base, os.W_OK | os.X_OK)


def _make_with_parents(folder: str) -> None:
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_with_parents(os.path.dirname(folder))
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
