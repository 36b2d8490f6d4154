"""How long a timer for a moment of the wall clock waits.

Runs as: the supervisor.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

LONGEST_S = 300.0
"""A clock that was set is noticed within minutes."""


def timer_delay(seconds: float) -> float:
    """Return the delay of a timer that is to look again in so many seconds at the latest."""
    return min(max(seconds, 0.0) + 0.001, LONGEST_S)
