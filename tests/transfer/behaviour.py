"""What a behaviour of a server is declared with: pages, and the outcome that every worker must come to.

Always, and whatever the outcome is: the final name holds the right bytes or does not exist.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from support.misbehaving_cases import Case, Page, Rule, Turn

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import NO_OPTIONS, TransferOptions

BIG_BYTES = 4 * 1024 * 1024
HALF_BYTES = BIG_BYTES // 2
RATE_BPS = 2 * 1024 * 1024
BIG = random.Random(1).randbytes(BIG_BYTES)
OTHER_BIG = random.Random(2).randbytes(BIG_BYTES)
SMALL = random.Random(3).randbytes(40_000)
OTHER_SMALL = random.Random(4).randbytes(40_000)
DATE = "Tue, 01 Jul 2025 10:00:00 GMT"
OTHER_DATE = "Wed, 02 Jul 2025 10:00:00 GMT"
PAGE_OF_WORDS = b"<html><body><h1>Please log in</h1></body></html>\n" * 8

GOOD = Case(body=BIG, etag='"v1"', last_modified=DATE, rate_bps=RATE_BPS)
"""A good server, which limits each connection, so that several of them are worthwhile."""

TINY = Case(body=SMALL, etag='"v1"', last_modified=DATE)
"""A good server with a file for which one connection is enough."""

BARE = Case(body=SMALL)
"""A server with a file for which nothing but its end is known."""

LOGIN = Case(body=PAGE_OF_WORDS, headers=("Content-Type: text/html",))
"""What is sent in place of the file by a server that wants a log-in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """The right bytes, at once or after at most so many attempts; `any_of` is the first case's body if not given."""

    any_of: tuple[bytes, ...] = ()
    attempts: int = 1
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fails:
    """No file; the last of these attempts failed with one of the codes."""

    codes: tuple[FailureCode, ...]
    attempts: int = 2
    retry_after_s: tuple[float, float] | None = None
    """The least and the most that is passed on; None: not looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Either:
    """A server so odd that both are right: the right bytes, or a clear failure."""

    right: Right = Right()
    fails: Fails


Outcome = Right | Fails | Either

AT_ONCE = Right()


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """One way to be a server; the first page is asked for, and then, by the same worker, the pages of `then`.

    `after_kill`: the outcome where a worker was killed in the middle, if it is another one.
    """

    name: str
    pages: tuple[Page, ...]
    outcome: Outcome = AT_ONCE
    then: tuple[Page, ...] = ()
    options: TransferOptions = NO_OPTIONS
    after_kill: Outcome | None = None

    def right(self) -> tuple[bytes, ...]:
        """Return the versions of the file that may stand at the final name."""
        outcome = self.outcome.right if isinstance(self.outcome, Either) else self.outcome
        if isinstance(outcome, Fails):
            return ()
        return outcome.any_of or (self.pages[0].cases[0].body,)


def always(name: str, case: Case, outcome: Outcome = AT_ONCE) -> Behaviour:
    """Declare a server that gives this answer to every request."""
    return Behaviour(name=name, pages=(Page(cases=(case,)),), outcome=outcome)


def in_turn(name: str, *cases: Case, outcome: Outcome = AT_ONCE, turn: Turn = Turn.IN_ORDER) -> Behaviour:
    """Declare a server that gives one answer after the other."""
    return Behaviour(name=name, pages=(Page(cases=cases, turn=turn),), outcome=outcome)


def ruled(
    name: str, rule: Rule, *, case: Case = GOOD, outcome: Outcome = AT_ONCE, pages: tuple[Page, ...] = ()
) -> Behaviour:
    """Declare a server that is good, but for some requests."""
    return Behaviour(name=name, pages=(Page(cases=(case,), rules=(rule,)), *pages), outcome=outcome)


def raw(name: str, data: bytes, outcome: Outcome, **more: object) -> Behaviour:
    """Declare a server that sends these bytes and closes the connection."""
    return always(name, Case(body=SMALL, raw=data, **more), outcome)  # type: ignore[arg-type]
