"""The limits that count now: what the configuration gives, and what was set while the daemon ran.

Runs as: the supervisor.  Talks to: nobody; no I/O (the store keeps what was set).
Invariants: of several limits on the same thing the smallest counts; 0 is none. So nobody can have more than
the configuration gives, and no user more than an administrator has set for them.
"""

from __future__ import annotations

from collections.abc import Mapping

from autodl_lib.contract.settings import Settings
from autodl_lib.contract.task import Uid
from autodl_lib.store.rows import SetRates
from autodl_lib.supervisor.scheduling.user_limits import UserLimits

DAEMON = Uid(-1)
"""The uid under which the whole daemon's limit is kept."""


class RateLimits:
    """Limits in bytes a second, 0 for none."""

    def __init__(self, settings: Settings, stored: Mapping[Uid, SetRates], users: UserLimits | None = None) -> None:
        self._settings = settings
        self._users = users or UserLimits(settings)
        self._stored = dict(stored)

    def configure(self, settings: Settings) -> None:
        """Obey new settings."""
        self._settings = settings
        self._users.configure(settings)

    def set(self, uid: Uid, rates: SetRates) -> None:
        """Obey what was set for a user, or for the daemon (it is on disk already)."""
        self._stored[uid] = rates

    @property
    def daemon_bps(self) -> int:
        """What all transfers together may take."""
        return least(self._settings.transfer.rate_bps, self.stored(DAEMON).own_bps)

    def user_bps(self, uid: Uid) -> int:
        """What a user's transfers together may take."""
        found = self.stored(uid)
        return least(self._users.of(uid).rate_bps, found.own_bps, found.ceiling_bps)

    def stored(self, uid: Uid) -> SetRates:
        """What was set for a user, or for the daemon, while a daemon ran."""
        return self._stored.get(uid, SetRates())


def least(*limits_bps: int) -> int:
    """Return the smallest limit that is one."""
    return min((limit for limit in limits_bps if limit), default=0)
