"""The loop's time, shared between users: in each round of the loop everyone's requests may go on for a bit.

Runs as: the supervisor, on the loop.  Talks to: nobody; no I/O.
A turn is light (a small request, what one connection has sent) or heavy (a long line, a piece of a long answer). In
one round a user gets LIGHT_PER_ROUND light turns or one heavy one, whatever the number of their connections. Where
another user asks too, who has had a heavy turn sits out as long as it took: however much one user asks, half of the
time is not theirs. Of a user's requests MAX_UNDER_WAY are under way at once, so that what comes of one commit is
bounded, too. Who has been alone for a second gets more of both, ALONE times as much.
Invariants: what is under way goes on before anything else of its user begins, so it always comes to its end; an idle
loop has no timer of ours.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from autodl_lib.contract.task import Uid

LIGHT_PER_ROUND = 8
LIGHT, HEAVY = 1, LIGHT_PER_ROUND
MAX_UNDER_WAY = 128
ALONE = 4
_WORTH_SITTING_OUT_S = 0.002
_COMPANY_S = 1.0
"""So long after turns of two users nobody is alone."""

Turn = Callable[[], None]


@dataclass(slots=True)
class _Waiting:
    """What waits for one user's turns: what goes on, and what begins."""

    going_on: deque[tuple[int, Turn]] = field(default_factory=deque)
    beginning: deque[tuple[int, Turn]] = field(default_factory=deque)


class FairTurns:
    """Who may go on when."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._left: dict[Uid, int] = {}
        self._waiting: dict[Uid, _Waiting] = {}
        self._under_way: Counter[Uid] = Counter()
        self._not_before: dict[Uid, float] = {}
        self._last: Uid | None = None
        self._company_until = 0.0
        self._round: asyncio.Handle | None = None

    def try_begin(self, uid: Uid, cost: int) -> bool:
        """Take a turn for a new request, if the user has one left in this round and no request waits."""
        if self._under_way[uid] >= self._most(MAX_UNDER_WAY) or not self.try_take(uid, cost):
            return False
        self._under_way[uid] += 1
        return True

    def call_to_begin(self, uid: Uid, cost: int, turn: Turn) -> None:
        """Call back when a new request's turn has come; it is taken then."""
        self._waiting.setdefault(uid, _Waiting()).beginning.append((cost, turn))
        self._arm()

    def ended(self, uid: Uid) -> None:
        """A request that began has been answered."""
        self._under_way[uid] -= 1
        if not self._under_way[uid]:
            del self._under_way[uid]
        if uid in self._waiting:
            self._arm()

    def try_take(self, uid: Uid, cost: int) -> bool:
        """Take a turn at once, if the user has one left in this round and waits for none."""
        if uid in self._waiting or self._sits_out(uid, time.monotonic()):
            return False
        left = self._left.get(uid)
        if left is None:
            left = self._most(LIGHT_PER_ROUND)
        if left < cost:
            return False
        self._take(uid, left - cost)
        return True

    def call_in_turn(self, uid: Uid, cost: int, turn: Turn) -> None:
        """Call back when the user's turn has come; it is taken then."""
        self._waiting.setdefault(uid, _Waiting()).going_on.append((cost, turn))
        self._arm()

    async def take(self, uid: Uid, cost: int) -> None:
        """Wait for a turn, and take it."""
        if self.try_take(uid, cost):
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self.call_in_turn(uid, cost, lambda: None if future.done() else future.set_result(None))
        await future

    def charge(self, uid: Uid, elapsed_s: float) -> None:
        """A turn has taken so long: where others ask too, the user sits out as long."""
        if elapsed_s < _WORTH_SITTING_OUT_S:
            return
        now = time.monotonic()
        if now < self._company_until:
            self._not_before[uid] = max(self._not_before.get(uid, 0.0), now) + elapsed_s

    def _take(self, uid: Uid, left: int) -> None:
        self._left[uid] = left
        if uid != self._last:
            if self._last is not None:
                self._company_until = time.monotonic() + _COMPANY_S
            self._last = uid
        self._arm()

    def _most(self, number: int) -> int:
        return number if time.monotonic() < self._company_until else ALONE * number

    def _sits_out(self, uid: Uid, now: float) -> bool:
        until = self._not_before.get(uid)
        if until is None:
            return False
        if until > now:
            return True
        del self._not_before[uid]
        return False

    def _arm(self) -> None:
        if self._round is None:
            self._round = self._loop.call_soon(self._begin_round)

    def _begin_round(self) -> None:
        self._round = None
        self._left.clear()
        now = time.monotonic()
        resting_until = None
        for uid in list(self._waiting):
            if self._sits_out(uid, now):
                until = self._not_before[uid]
                resting_until = until if resting_until is None else min(until, resting_until)
            else:
                self._let_go_on(uid)
        if any(uid not in self._not_before and self._may_go_on(uid) for uid in self._waiting):
            self._arm()
        elif resting_until is not None:
            self._loop.call_later(max(0.0, resting_until - now), self._arm)

    def _let_go_on(self, uid: Uid) -> None:
        waiting = self._waiting[uid]
        full = left = self._most(LIGHT_PER_ROUND)
        under_way = self._most(MAX_UNDER_WAY)
        while waiting.going_on and waiting.going_on[0][0] <= left:
            cost, turn = waiting.going_on.popleft()
            left -= cost
            turn()
        while waiting.beginning and waiting.beginning[0][0] <= left and self._under_way[uid] < under_way:
            cost, turn = waiting.beginning.popleft()
            left -= cost
            self._under_way[uid] += 1
            turn()
        if left < full:
            self._take(uid, left)
        if not waiting.going_on and not waiting.beginning:
            del self._waiting[uid]

    def _may_go_on(self, uid: Uid) -> bool:
        waiting = self._waiting[uid]
        return bool(waiting.going_on) or self._under_way[uid] < self._most(MAX_UNDER_WAY)


class Pace:
    """One request's way through long work, in pieces: `await pace.next()` between two of them."""

    def __init__(self, turns: FairTurns, uid: Uid) -> None:
        self._turns = turns
        self._uid = uid
        self._began_mono = time.monotonic()

    def begin(self) -> None:
        """What follows is the first piece: what was waited for before is not charged."""
        self._began_mono = time.monotonic()

    async def next(self) -> None:
        """End a piece, and wait for the turn of the next."""
        self._turns.charge(self._uid, time.monotonic() - self._began_mono)
        await self._turns.take(self._uid, HEAVY)
        self._began_mono = time.monotonic()
