"""Which limits count for which user: their own table, else that of a group of theirs, else [limits].

Runs as: the supervisor.  Talks to: nobody; no I/O (who looks an account up tells it here).
Invariants: a user whose account was not seen yet has the limits of everybody.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from autodl_lib.contract.settings import LimitsSection, OwnLimits, Settings
from autodl_lib.contract.task import Uid
from autodl_lib.privilege.accounts import Account


class UserLimits:
    """The limits of each user."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._accounts: dict[Uid, Account] = {}
        self._resolved: dict[Uid, LimitsSection] = {}

    def configure(self, settings: Settings) -> None:
        """Obey new settings."""
        self._settings = settings
        self._resolved.clear()

    def learn(self, account: Account) -> None:
        """Take in what the machine says of a user now: their name and groups."""
        self._accounts[account.uid] = account
        self._resolved.pop(account.uid, None)

    def known(self) -> list[Uid]:
        """Return the users whose accounts were seen."""
        return list(self._accounts)

    def of(self, uid: Uid) -> LimitsSection:
        """Return a user's limits."""
        found = self._resolved.get(uid)
        if found is None:
            found = self._resolved[uid] = self._resolve(uid)
        return found

    def _resolve(self, uid: Uid) -> LimitsSection:
        limits = self._settings.limits
        account = self._accounts.get(uid)
        if account is None:
            return limits
        tables = [named.limits for named in self._settings.users if named.name == account.name]
        tables += [named.limits for named in self._settings.groups if named.name in account.groups]
        # The first one is what counts, so it is laid over the others last.
        for table in reversed(tables):
            limits = replace(limits, **_given(table))
        return limits


def _given(table: OwnLimits) -> dict[str, Any]:
    values = {field.name: getattr(table, field.name) for field in fields(table)}
    return {name: value for name, value in values.items() if value is not None}
