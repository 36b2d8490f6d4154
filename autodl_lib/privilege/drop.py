"""Becoming another user for good, and proving it.

Runs as: root, until `become` returns.  Talks to: the kernel.
Security: the order is capability bounds, groups, gid, uid, since each step needs the rights that the next one gives up
(initgroups without setresgid leaves gid 0; setresuid without groups leaves the parent's groups). After it all four ids
of each kind and all five sets of capabilities are read back, and regaining root is tried and must fail.
How it fails: DropFailed, and the process must exit without doing anything else.
Known limits: where root itself has no CAP_SETPCAP (a unit that doesn't grant it), the bounding set stays; under
no_new_privs it gives nothing.
Source: credentials(7), setresuid(2), prctl(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Callable

from autodl_lib.contract.task import Uid
from autodl_lib.privilege import capabilities
from autodl_lib.privilege.accounts import Account

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38


class DropFailed(Exception):
    """The process is not, or not provably, who it must be."""


def become(account: Account) -> None:
    """Turn this root process into the account's, for good; the account may be root's own, which keeps files only.

    Raises: DropFailed.
    """
    kept = capabilities.FILES_OF_ALL if account.uid == 0 else capabilities.NONE
    may_bound = capabilities.read_capabilities().effective >> capabilities.CAP_SETPCAP & 1
    capabilities.bound(kept)
    try:
        os.initgroups(account.name, account.gid)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        raise DropFailed(f"can't become {account.name}: {error}") from error
    capabilities.reduce(kept)
    seal()
    prove(account, kept)
    if may_bound and capabilities.read_capabilities().bounding & ~kept:
        raise DropFailed(f"the bounding set is not empty after becoming {account.name}")


def seal() -> None:
    """Give up what no worker needs: new privileges by exec, core files, being traced by its user."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise DropFailed("can't set no_new_privs")
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise DropFailed("can't make the process undumpable")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def prove(account: Account, kept: int = capabilities.NONE) -> None:
    """Check that this process is the account's in every id and has no capability but `kept`, and can't get more.

    Raises: DropFailed.
    """
    ids = {"Uid:": [account.uid] * 4, "Gid:": [account.gid] * 4}
    for name, wanted in ids.items():
        if (found := _ids(name)) != wanted:
            raise DropFailed(f"{name} {found} are not the ids of {account.name}")
    if set(os.getgroups()) - set(os.getgrouplist(account.name, account.gid)):
        raise DropFailed(f"groups are left that {account.name} is not in")
    if capabilities.read_capabilities().usable & ~kept:
        raise DropFailed(f"capabilities are left after becoming {account.name}")
    if account.uid == 0:
        return
    attempts: list[Callable[[], None]] = [lambda: os.setuid(0), lambda: os.setresuid(-1, 0, -1)]
    if account.gid != 0:
        attempts.append(lambda: os.setgid(0))
    for attempt in attempts:
        with contextlib.suppress(PermissionError):
            attempt()
            raise DropFailed(f"privileges could be regained after becoming {account.name}")


def check_own(uid: Uid) -> None:
    """Check that this process already is its user's, where the daemon is not root.

    Raises: DropFailed.
    """
    if _ids("Uid:") != [uid] * 4:
        raise DropFailed(f"uids are {_ids('Uid:')}, not {uid}")


def _ids(name: str) -> list[int]:
    """Return the real, effective, saved and file system ids of this process, by the kernel's word."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith(name):
                return [int(word) for word in line.split()[1:]]
    return []
