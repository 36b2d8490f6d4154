"""What happens after a failure: another try and when, or the end. Pure.

Runs as: the supervisor.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from autodl_lib.contract.failures import NOT_THE_TASKS_FAULT, RETRYABLE, FailureCode
from autodl_lib.contract.settings import RetrySection

LOST_FIRST_DELAY_S = 0.2
"""A worker that vanished says nothing about the server: the first new try comes soon."""

MAX_RETRY_AFTER_S = 86400.0

LONGEST_LOOK_S = 30.0
"""While the network is down or the disk is full, it is looked again so often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How an attempt ended; `streak` counts failures in a row without progress before this one.

    `stuck_since` is when the first of them was; times are UTC epoch seconds.
    """

    code: FailureCode
    streak: int
    progressed: bool
    at: float
    stuck_since: float | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`delay_s` None: no further try. `streak`: failures in a row without progress, this one included."""

    delay_s: float | None
    streak: int
    stuck_since: float


def decide(attempt: Attempt, settings: RetrySection, jitter: float) -> Decision:
    """Decide about another try; `jitter` is a random number from 0 to 1.

    The delay doubles with each failure in a row, up to max_delay_s, times 0.75 to 1.25; what the server
    asked for by Retry-After wins where it is longer or shorter, up to a day.
    A task gives up after max_attempts failures in a row, or when the first of them is no_progress_limit_s
    ago. What is not the task's fault is no failure in this sense: it is not counted, it never gives up, and
    the clock of no_progress_limit_s starts anew with it.
    """
    if attempt.code in NOT_THE_TASKS_FAULT:
        return _wait(attempt, settings, jitter)
    streak = 1 if attempt.progressed else attempt.streak + 1
    since = attempt.at if attempt.progressed or attempt.stuck_since is None else min(attempt.stuck_since, attempt.at)
    if attempt.code not in RETRYABLE:
        return Decision(delay_s=None, streak=streak, stuck_since=since)
    if settings.max_attempts and streak >= settings.max_attempts:
        return Decision(delay_s=None, streak=streak, stuck_since=since)
    if settings.no_progress_limit_s and attempt.at - since >= settings.no_progress_limit_s:
        return Decision(delay_s=None, streak=streak, stuck_since=since)
    if attempt.retry_after_s is not None:
        return Decision(delay_s=min(attempt.retry_after_s, MAX_RETRY_AFTER_S), streak=streak, stuck_since=since)
    first = settings.first_delay_s
    if attempt.code is FailureCode.WORKER_LOST:
        first = min(first, LOST_FIRST_DELAY_S)
    delay = min(first * 2.0 ** min(streak - 1, 60), settings.max_delay_s)
    return Decision(delay_s=delay * (0.75 + jitter / 2), streak=streak, stuck_since=since)


def _wait(attempt: Attempt, settings: RetrySection, jitter: float) -> Decision:
    """Look again soon, then twice as long after the last time each, up to LONGEST_LOOK_S."""
    since_last_s = 0.0
    if attempt.stuck_since is not None and not attempt.progressed:
        since_last_s = max(0.0, attempt.at - attempt.stuck_since)
    delay = min(max(settings.first_delay_s, 2 * since_last_s), settings.max_delay_s, LONGEST_LOOK_S)
    streak = 0 if attempt.progressed else attempt.streak
    return Decision(delay_s=delay * (0.75 + jitter / 2), streak=streak, stuck_since=attempt.at)
