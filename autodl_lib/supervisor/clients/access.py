"""Who may use the daemon, and who administers it.

Runs as: the supervisor; accounts are looked up on a thread, since they may come from a network.
Security: identity is the uid that the kernel gave at connect. An overflow uid and, under root, a uid
without an account are refused. A daemon that is not root serves its own uid and root alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from autodl_lib.contract.errors import NotAllowed
from autodl_lib.contract.settings import AccessSection
from autodl_lib.contract.task import Uid
from autodl_lib.privilege.accounts import Account, find_account
from autodl_lib.privilege.peer import Peer, overflow_uid
from autodl_lib.store.rows import Actor
from autodl_lib.supervisor.clients.peer_program import program_of

_REMEMBER_S = 30.0
_MAX_REMEMBERED = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: a uid with a name, and whether they administer this daemon; `home` is their folder, where known."""

    uid: Uid
    name: str
    pid: int
    is_admin: bool
    program: str | None = None
    home: str | None = None

    @property
    def actor(self) -> Actor:
        """Who this caller is in the history."""
        return Actor(uid=self.uid, name=self.name, pid=self.pid, program=self.program)

    @property
    def sees(self) -> Uid | None:
        """Whose tasks exist for this caller: None is everybody's."""
        return None if self.is_admin else self.uid


class Access:
    """Decides from settings and accounts."""

    def __init__(self, settings: AccessSection, seen: Callable[[Account], None] = lambda _: None) -> None:
        """`seen` is told of each account that was looked up."""
        self._settings = settings
        self._seen = seen
        self._own_uid = Uid(os.geteuid())
        self._overflow_uid = overflow_uid()
        self._lookups: dict[Uid, asyncio.Future[Account | None]] = {}
        self._accounts: dict[Uid, tuple[float, Account | None]] = {}

    def configure(self, settings: AccessSection) -> None:
        """Obey new settings, for connections made from now on."""
        self._settings = settings
        self._accounts.clear()

    async def admit(self, peer: Peer) -> Caller:
        """Return who a peer is, and what their process runs.

        Raises: NotAllowed.
        """
        program = program_of(peer.pid)  # first of all: it may end any moment
        return dataclasses.replace(await self._admit(peer), program=program)

    async def _admit(self, peer: Peer) -> Caller:
        if peer.uid == self._overflow_uid:
            raise NotAllowed("your user id is not known outside of your user namespace")
        account = await self._account(peer.uid)
        if self._own_uid != 0:
            if peer.uid not in (0, self._own_uid):
                raise NotAllowed("this is the private daemon of another user")
            return Caller(uid=peer.uid, name=_name(peer.uid, account), pid=peer.pid, is_admin=True, home=_own_home())
        if account is None:
            if peer.uid != 0:
                raise NotAllowed(f"user id {peer.uid} has no account on this machine")
            return Caller(uid=peer.uid, name="root", pid=peer.pid, is_admin=True, home=_own_home())
        if not self._is_allowed(account):
            raise NotAllowed(f"the administrator does not let {account.name} use autodl (see [access] in autodl.toml)")
        is_admin = peer.uid == 0 or self._settings.admin_group in account.groups
        home = _own_home() if peer.uid == 0 else account.home
        return Caller(uid=peer.uid, name=account.name, pid=peer.pid, is_admin=is_admin, home=home)

    def _is_allowed(self, account: Account) -> bool:
        settings = self._settings
        if account.uid == 0:
            return True
        if account.name in settings.deny_users or account.groups & {*settings.deny_groups}:
            return False
        if "*" in settings.allow_users or account.name in settings.allow_users:
            return True
        return bool(account.groups & {*settings.allow_groups, settings.admin_group})

    async def _account(self, uid: Uid) -> Account | None:
        remembered = self._accounts.get(uid)
        now = time.monotonic()
        if remembered is not None and now - remembered[0] < _REMEMBER_S:
            return remembered[1]
        lookup = self._lookups.get(uid)
        if lookup is None:
            # One for all who wait for it: who connects often keeps no more than one thread busy.
            lookup = self._lookups[uid] = asyncio.ensure_future(asyncio.to_thread(find_account, uid))
            lookup.add_done_callback(lambda _: self._lookups.pop(uid, None))
        account = await asyncio.shield(lookup)
        if account is not None:
            self._seen(account)
        if len(self._accounts) >= _MAX_REMEMBERED:
            self._accounts.clear()
        self._accounts[uid] = (now, account)
        return account


def _own_home() -> str:
    """Return the home of the daemon's own user, as its environment has it: its workers inherit that."""
    return os.path.expanduser("~")


def _name(uid: Uid, account: Account | None) -> str:
    return account.name if account else str(uid)
