"""Becoming another user for good, and proving it.

Runs as: root, until `become` returns.  Talks to: the kernel.
Security: the order is groups, gid, uid, since each step needs the rights that the next one gives up
(initgroups without setresgid leaves gid 0; setresuid without groups leaves the parent's groups). After
it all three ids of each kind are read back, and regaining root is tried and must fail.
How it fails: DropFailed, and the process must exit without doing anything else.
Source: credentials(7), setresuid(2), prctl(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Callable

from autodl_lib.contract.task import Uid
from autodl_lib.privilege.accounts import Account

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38


class DropFailed(Exception):
    """The process is not, or not provably, who it must be."""


def become(account: Account) -> None:
    """Turn this root process into the account's, for good.

    Raises: DropFailed.
    """
    try:
        os.initgroups(account.name, account.gid)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        raise DropFailed(f"can't become {account.name}: {error}") from error
    seal()
    prove(account)


def seal() -> None:
    """Give up what no worker needs: new privileges by exec, core files, being traced by its user."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise DropFailed("can't set no_new_privs")
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise DropFailed("can't make the process undumpable")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def prove(account: Account) -> None:
    """Check that this process is the account's in every id, and that root can't be regained.

    Raises: DropFailed.
    """
    if os.getresuid() != (account.uid,) * 3 or os.getresgid() != (account.gid,) * 3:
        raise DropFailed(f"ids are {os.getresuid()} {os.getresgid()}, not those of {account.name}")
    if set(os.getgroups()) - set(os.getgrouplist(account.name, account.gid)):
        raise DropFailed(f"groups are left that {account.name} is not in")
    if account.uid == 0:
        return
    attempts: list[Callable[[], None]] = [lambda: os.setuid(0), lambda: os.setresuid(-1, 0, -1)]
    if account.gid != 0:
        attempts.append(lambda: os.setgid(0))
    for attempt in attempts:
        with contextlib.suppress(PermissionError):
            attempt()
            raise DropFailed(f"privileges could be regained after becoming {account.name}")
    if _capabilities() != 0:
        raise DropFailed(f"capabilities are left after becoming {account.name}")


def check_own(uid: Uid) -> None:
    """Check that this process already is its user's, where the daemon is not root.

    Raises: DropFailed.
    """
    if os.getresuid() != (uid, uid, uid):
        raise DropFailed(f"uids are {os.getresuid()}, not {uid}")


def _capabilities() -> int:
    """Return the effective and permitted capabilities of this process, as one set of bits."""
    bits = 0
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith(("CapEff:", "CapPrm:")):
                bits |= int(line.split()[1], 16)
    return bits
