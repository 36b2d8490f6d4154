"""Whom the pool tells.

Runs as: the supervisor.  Talks to: nobody itself.
"""

from __future__ import annotations

from typing import Protocol

from autodl_lib.supervisor.workers.admission import Admitted
from autodl_lib.supervisor.workers.losses import Loss


class Listener(Protocol):
    """What the pool tells; each returns when it is on disk."""

    async def reported(self, batch: list[Admitted]) -> None:
        """Take reports, in order."""

    async def lost(self, losses: list[Loss]) -> None:
        """Take the loss of leases."""

    def changed(self) -> None:
        """A place or a worker has become free."""
