"""Confinement by the kernel's Landlock, on top of the user's own rights: what a downloader never does, it can't do.

Runs as: a process of the pool, after its drop and while it has one thread.  Talks to: the kernel.
A worker serves all folders of its user, and those may be anywhere, so what is denied is what no folder makes right:
running programs, making devices, sockets, pipes and symlinks, ioctls on devices, moving files between folders,
listening on a TCP port of one's choice, and, to processes outside of the worker: signals, ptrace, abstract sockets.
The report queue's process, which has all that it needs open, may open nothing more and connect to nobody.
Invariants: what is denied stays denied for good, in all threads and children that come.
How it fails: ConfinementFailed where the kernel has Landlock and refuses; without it (before 5.13, or not in its lsm=
list, or a service manager's filter) nothing happens, and `landlock_abi` is 0.
Known limits: writing only below a task's folder would take a worker for each folder: a rule can't be added later.
Source: landlock(7), linux/landlock.h, Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_NET_PORT = 2

_EXECUTE = 1 << 0
_MAKE_CHAR, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = 1 << 6, 1 << 9, 1 << 10, 1 << 11, 1 << 12
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_ABSTRACT_UNIX_SOCKET, _SIGNAL = 1 << 0, 1 << 1

_ALL_FILES = (1 << 16) - 1
_FIRST_ABI_OF = {_REFER: 2, _TRUNCATE: 3, _IOCTL_DEV: 5}
_NET_ABI, _SCOPE_ABI = 4, 6


class ConfinementFailed(Exception):
    """The kernel has Landlock, but did not take the rules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """What is denied, in Landlock's bits: access to files, to TCP ports, and to what is outside of the process."""

    files: int
    net: int
    scopes: int


WORKER_DENIED = Denied(
    files=_EXECUTE | _MAKE_CHAR | _MAKE_BLOCK | _MAKE_SOCK | _MAKE_FIFO | _MAKE_SYM | _REFER | _IOCTL_DEV,
    net=_BIND_TCP,
    scopes=_ABSTRACT_UNIX_SOCKET | _SIGNAL,
)
MANAGER_DENIED = Denied(files=_ALL_FILES, net=_BIND_TCP | _CONNECT_TCP, scopes=_ABSTRACT_UNIX_SOCKET | _SIGNAL)


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scopes", ctypes.c_uint64)]


class _NetPort(ctypes.Structure):
    _fields_ = [("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64)]


def landlock_abi() -> int:
    """Return the version of Landlock that this process may use; 0 is none."""
    abi: int = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    return max(0, abi)


def confine(denied: Denied) -> None:
    """Deny this process what `denied` says, as far as the kernel can, for good. It must have no_new_privs.

    Raises: ConfinementFailed.
    """
    abi = landlock_abi()
    if abi == 0:
        return
    libc = _libc()
    ruleset, size = _ruleset(denied, abi)
    fd = libc.syscall(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), 0)
    if fd < 0:
        raise ConfinementFailed(f"Landlock refuses a ruleset: {os.strerror(ctypes.get_errno())}")
    try:
        if ruleset.net == _BIND_TCP:
            # Port 0: leaving by a certain address (--interface) binds to it, at a port of the kernel's choice.
            any_port = _NetPort(allowed=_BIND_TCP, port=0)
            if libc.syscall(_ADD_RULE, fd, _RULE_NET_PORT, ctypes.byref(any_port), 0) != 0:
                raise ConfinementFailed(f"Landlock refuses a rule: {os.strerror(ctypes.get_errno())}")
        if libc.syscall(_RESTRICT_SELF, fd, 0) != 0:
            raise ConfinementFailed(f"Landlock does not bind: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(fd)


def confinement_words() -> str:
    """Say for an administrator whether processes will be confined."""
    abi = landlock_abi()
    if abi == 0:
        return "no Landlock here: workers have all the rights of their users"
    return f"workers are confined by Landlock (version {abi})"


def _ruleset(denied: Denied, abi: int) -> tuple[_Ruleset, int]:
    """Return what of it this version knows, and how long the structure is in this version."""
    unknown = sum(bit for bit, first in _FIRST_ABI_OF.items() if abi < first)
    net = denied.net if abi >= _NET_ABI else 0
    scopes = denied.scopes if abi >= _SCOPE_ABI else 0
    size = 24 if abi >= _SCOPE_ABI else 16 if abi >= _NET_ABI else 8
    return _Ruleset(files=denied.files & ~unknown, net=net, scopes=scopes), size


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc
