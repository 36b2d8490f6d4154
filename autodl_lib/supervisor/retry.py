"""What happens after a failure: another try and when, or the end. Pure.

Runs as: the supervisor.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from autodl_lib.contract.failures import RETRYABLE, FailureCode
from autodl_lib.contract.settings import RetrySection

LOST_FIRST_DELAY_S = 0.2
"""A worker that vanished says nothing about the server: the first new try comes soon."""

MAX_RETRY_AFTER_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How an attempt ended; `streak` counts failures in a row without progress before this one."""

    code: FailureCode
    streak: int
    progressed: bool
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`delay_s` None: no further try. `streak`: failures in a row without progress, this one included."""

    delay_s: float | None
    streak: int


def decide(attempt: Attempt, settings: RetrySection, jitter: float) -> Decision:
    """Decide about another try; `jitter` is a random number from 0 to 1.

    The delay doubles with each failure in a row, up to max_delay_s, times 0.75 to 1.25; what the server
    asked for by Retry-After wins where it is longer or shorter, up to a day.
    """
    streak = 1 if attempt.progressed else attempt.streak + 1
    if attempt.code not in RETRYABLE:
        return Decision(delay_s=None, streak=streak)
    if settings.max_attempts and streak >= settings.max_attempts:
        return Decision(delay_s=None, streak=streak)
    if attempt.retry_after_s is not None:
        return Decision(delay_s=min(attempt.retry_after_s, MAX_RETRY_AFTER_S), streak=streak)
    first = settings.first_delay_s
    if attempt.code is FailureCode.WORKER_LOST:
        first = min(first, LOST_FIRST_DELAY_S)
    delay = min(first * 2.0 ** min(streak - 1, 60), settings.max_delay_s)
    return Decision(delay_s=delay * (0.75 + jitter / 2), streak=streak)
