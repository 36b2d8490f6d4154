"""How far an assignment is in the worker, and what that means for the orders that come.

Runs as: the task's owner.  Talks to: nobody.
WAITING -> PREPARING -> ADOPTING -> TRANSFERRING -> CHECKING -> SYNCING -> READY -> PUBLISHING -> ENDED. Most tasks need
neither preparing nor adopting nor checking; a check that fails may lead back to TRANSFERRING; where the final name is
taken, READY stays and is reported again. A failure or a halt leads from any phase up to READY through SAVING (see
letting_go) to ENDED.
"""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """How far an assignment is."""

    WAITING = "waiting"
    PREPARING = "preparing"
    ADOPTING = "adopting"
    TRANSFERRING = "transferring"
    CHECKING = "checking"
    SYNCING = "syncing"
    READY = "ready"
    PUBLISHING = "publishing"
    SAVING = "saving"
    ENDED = "ended"


HALTS_AT_ONCE = frozenset({Phase.WAITING, Phase.PREPARING, Phase.TRANSFERRING, Phase.READY})
HALTS_LATER = frozenset({Phase.ADOPTING, Phase.CHECKING, Phase.SYNCING})
"""The sync thread is at the part file: a halt waits until its job came back."""
IS_COMPLETE = frozenset({Phase.CHECKING, Phase.SYNCING, Phase.READY})
"""Every byte is in the part file."""
MAY_HOLD_BYTES = frozenset({Phase.ADOPTING, Phase.TRANSFERRING}) | IS_COMPLETE
"""There may be a part file that nobody takes care of, if the worker leaves now."""
