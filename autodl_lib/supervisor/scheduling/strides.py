"""Whose turn it is, by stride scheduling: each start moves a user's pass on by one over their weight. Pure.

Runs as: the supervisor.  Talks to: nobody; no I/O.
Invariants: who comes back after a while has the pass of who is served now, never less: nobody saves up turns.
Source: Waldspurger and Weihl, "Stride Scheduling", 1995.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from autodl_lib.contract.task import Uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A user's place in the order: who has the lower pass goes first, then who was served longer ago."""

    served_pass: float = 0.0
    last: int = 0


class Strides:
    """Every user's pass."""

    def __init__(self) -> None:
        self._turns: dict[Uid, Turn] = {}
        self._now = 0.0
        self._numbers = itertools.count(1)

    def turn_of(self, uid: Uid) -> Turn:
        """Return a user's place now."""
        turn = self._turns.get(uid, Turn())
        return Turn(served_pass=max(turn.served_pass, self._now), last=turn.last)

    def served(self, uid: Uid, weight: int) -> None:
        """A task of a user was started."""
        self._now = self.turn_of(uid).served_pass
        self._turns[uid] = Turn(served_pass=self._now + 1 / weight, last=next(self._numbers))
