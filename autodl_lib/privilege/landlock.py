"""Confinement by the kernel's Landlock, on top of the user's own rights: what a downloader never does, it can't do.

Runs as: a process of the pool, after its drop and while it has one thread.  Talks to: the kernel.
A worker is confined twice. After its drop it loses what no folder makes right: running programs, making devices,
sockets, pipes and symlinks, ioctls on devices, moving files between folders, listening on a TCP port of one's choice,
and, to processes outside of the worker: signals, ptrace, abstract sockets. When it has opened the folder of its first
task, and read nothing yet from a network, it loses all writing outside of that folder: a rule can't be added later,
so it serves this folder alone from then on.
The report queue's process, which has all that it needs open, may open nothing more and connect to nobody.
Invariants: what is denied stays denied for good, in all threads and children that come.
How it fails: ConfinementFailed where the kernel has Landlock and refuses; without it (before 5.13, or not in its lsm=
list, or a service manager's filter) nothing happens, and `landlock_abi` is 0.
Known limits: modes, times and attributes of the user's other files are not covered by Landlock, nor is truncating
before its version 3.
Source: landlock(7), linux/landlock.h, Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 2

_EXECUTE, _WRITE_FILE = 1 << 0, 1 << 1
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
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


WRITING_DENIED = Denied(
    files=_WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _TRUNCATE, net=0, scopes=0
)
_ALLOWED_BELOW = _WRITE_FILE | _REMOVE_FILE | _MAKE_REG | _TRUNCATE


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scopes", ctypes.c_uint64)]


class _NetPort(ctypes.Structure):
    _fields_ = [("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def landlock_abi() -> int:
    """Return the version of Landlock that this process may use; 0 is none."""
    abi: int = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    return max(0, abi)


def confine(denied: Denied) -> None:
    """Deny this process what `denied` says, as far as the kernel can, for good. It must have no_new_privs.

    Raises: ConfinementFailed.
    """
    with _rules(denied) as rules:
        if rules is not None and rules.net == _BIND_TCP:
            # Port 0: leaving by a certain address (--interface) binds to it, at a port of the kernel's choice.
            rules.allow(_RULE_NET_PORT, _NetPort(allowed=_BIND_TCP, port=0))


def confine_writing(folder_fd: int) -> None:
    """Deny this process to write outside of an open folder, as far as the kernel can, for good.

    Raises: ConfinementFailed, also when there are other threads: they would stay free.
    """
    if threading.active_count() != 1:
        raise ConfinementFailed("Landlock would bind one of several threads")
    with _rules(WRITING_DENIED) as rules:
        if rules is not None:
            rules.allow(_RULE_PATH_BENEATH, _PathBeneath(allowed=_ALLOWED_BELOW & rules.files, parent_fd=folder_fd))


def confinement_words(*, to_folder: bool) -> str:
    """Say for an administrator whether processes will be confined, and workers each to one folder."""
    abi = landlock_abi()
    if abi == 0:
        return "no Landlock here: workers have all the rights of their users"
    return f"workers are confined by Landlock (version {abi})" + (", each to one folder" if to_folder else "")


class _Rules:
    """A ruleset that does not bind yet."""

    def __init__(self, fd: int, ruleset: _Ruleset) -> None:
        self.fd = fd
        self.files: int = ruleset.files
        self.net: int = ruleset.net

    def allow(self, kind: int, rule: ctypes.Structure) -> None:
        """Make an exception.

        Raises: ConfinementFailed.
        """
        if _libc().syscall(_ADD_RULE, self.fd, kind, ctypes.byref(rule), 0) != 0:
            raise ConfinementFailed(f"Landlock refuses a rule: {os.strerror(ctypes.get_errno())}")


@contextlib.contextmanager
def _rules(denied: Denied) -> Iterator[_Rules | None]:
    """Give a ruleset for exceptions, then bind this thread by it; None where the kernel has no Landlock."""
    abi = landlock_abi()
    if abi == 0:
        yield None
        return
    ruleset, size = _ruleset(denied, abi)
    fd = _libc().syscall(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), 0)
    if fd < 0:
        raise ConfinementFailed(f"Landlock refuses a ruleset: {os.strerror(ctypes.get_errno())}")
    try:
        yield _Rules(fd, ruleset)
        if _libc().syscall(_RESTRICT_SELF, fd, 0) != 0:
            raise ConfinementFailed(f"Landlock does not bind: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(fd)


def _ruleset(denied: Denied, abi: int) -> tuple[_Ruleset, int]:
    """Return what of it this version knows, and how long the structure is in this version."""
    unknown = sum(bit for bit, first in _FIRST_ABI_OF.items() if abi < first)
    net = denied.net if abi >= _NET_ABI else 0
    scopes = denied.scopes if abi >= _SCOPE_ABI else 0
    size = 24 if abi >= _SCOPE_ABI else 16 if abi >= _NET_ABI else 8
    return _Ruleset(files=denied.files & ~unknown, net=net, scopes=scopes), size


@functools.cache  # a library is a class of its own to ctypes, made anew each time
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc
