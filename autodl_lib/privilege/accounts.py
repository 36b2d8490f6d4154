"""What the machine's account database says of a uid.

Runs as: the supervisor (on a thread: the database may be on a network), and a worker before its drop.
Talks to: NSS, through pwd and grp.
"""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from autodl_lib.contract.task import Gid, Uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user of the machine; `groups` are the names of all groups that they are in."""

    uid: Uid
    gid: Gid
    name: str
    home: str
    shell: str
    groups: frozenset[str]


def find_account(uid: Uid) -> Account | None:
    """Return the account of a uid, or None where it has none; may block."""
    try:
        entry = pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        return None
    return Account(
        uid=uid,
        gid=Gid(entry.pw_gid),
        name=entry.pw_name,
        home=entry.pw_dir,
        shell=entry.pw_shell,
        groups=frozenset(_group_names(entry.pw_name, entry.pw_gid)),
    )


def find_account_by_name(name: str) -> Account | None:
    """Return the account of that name, or None; may block."""
    try:
        return find_account(Uid(pwd.getpwnam(name).pw_uid))
    except KeyError:
        return None


def _group_names(name: str, gid: int) -> list[str]:
    names = []
    for group in os.getgrouplist(name, gid):
        try:
            names.append(grp.getgrgid(group).gr_name)
        except KeyError:
            continue
    return names
