"""Who is on the other end of a Unix socket, by the kernel's word.

Runs as: the supervisor.  Talks to: the kernel.
Security: SO_PEERCRED is fixed when the peer connects; what it later sends or becomes changes nothing.
Source: unix(7), SO_PEERCRED; user_namespaces(7), unmapped ids.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from autodl_lib.contract.task import Gid, Uid

_UCRED = struct.Struct("3i")
_OVERFLOW_UID_FILE = Path("/proc/sys/kernel/overflowuid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process that connected."""

    uid: Uid
    gid: Gid
    pid: int


def peer_of(connection: socket.socket) -> Peer:
    """Return who connected.

    Raises: OSError when the kernel does not say.
    """
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(uid=Uid(uid & 0xFFFFFFFF), gid=Gid(gid & 0xFFFFFFFF), pid=pid)


def overflow_uid() -> Uid:
    """Return the uid that stands for every uid of a foreign user namespace: it names nobody in particular."""
    try:
        return Uid(int(_OVERFLOW_UID_FILE.read_text()))
    except (OSError, ValueError):
        return Uid(65534)
