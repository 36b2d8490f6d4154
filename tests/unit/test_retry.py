"""What happens after a failure: which are tried again, after how long, and how often."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_lib.contract.failures import NOT_THE_TASKS_FAULT, RETRYABLE, FailureCode
from autodl_lib.contract.settings import RetrySection
from autodl_lib.supervisor.scheduling.retry import LONGEST_LOOK_S, MAX_RETRY_AFTER_S, Attempt, decide

NOW = 1e9
SETTINGS = RetrySection(max_attempts=10, first_delay_s=5.0, max_delay_s=600.0)
codes = st.sampled_from(FailureCode)
counted = st.sampled_from(sorted(set(FailureCode) - NOT_THE_TASKS_FAULT))
jitters = st.floats(0, 1)


@pytest.mark.parametrize("code", FailureCode)
def test_only_what_may_pass_by_itself_is_tried_again(code: FailureCode) -> None:
    decision = decide(Attempt(code=code, streak=0, progressed=False, at=NOW), SETTINGS, 0.5)
    assert (decision.delay_s is not None) == (code in RETRYABLE)


@pytest.mark.parametrize(("streak", "delay_s"), [(0, 5), (1, 10), (2, 20), (6, 320), (7, 600), (8, 600)])
def test_the_delay_doubles_up_to_its_limit(streak: int, delay_s: float) -> None:
    decision = decide(Attempt(code=FailureCode.CONNECT, streak=streak, progressed=False, at=NOW), SETTINGS, 0.5)
    assert decision.delay_s == delay_s


def test_it_gives_up_at_the_last_attempt() -> None:
    assert (
        decide(Attempt(code=FailureCode.CONNECT, streak=8, progressed=False, at=NOW), SETTINGS, 0.5).delay_s is not None
    )
    assert decide(Attempt(code=FailureCode.CONNECT, streak=9, progressed=False, at=NOW), SETTINGS, 0.5).delay_s is None


def test_no_limit_of_attempts_is_no_limit() -> None:
    endless = RetrySection(max_attempts=0)
    decision = decide(Attempt(code=FailureCode.CONNECT, streak=10**6, progressed=False, at=NOW), endless, 1.0)
    assert decision.delay_s == endless.max_delay_s * 1.25


@given(code=counted, streak=st.integers(0, 10**6), jitter=jitters)
def test_progress_begins_a_new_streak(code: FailureCode, streak: int, jitter: float) -> None:
    assert decide(Attempt(code=code, streak=streak, progressed=True, at=NOW), SETTINGS, jitter).streak == 1
    assert decide(Attempt(code=code, streak=streak, progressed=False, at=NOW), SETTINGS, jitter).streak == streak + 1


@given(
    code=codes,
    streak=st.integers(0, 10**6),
    progressed=st.booleans(),
    jitter=jitters,
    retry_after_s=st.none() | st.floats(0, 10**9),
    first=st.floats(0.01, 10**6),
    longest=st.floats(0.01, 10**6),
    attempts=st.integers(0, 100),
)
def test_a_delay_is_never_negative_nor_beyond_its_limits(
    code: FailureCode,
    streak: int,
    progressed: bool,
    jitter: float,
    retry_after_s: float | None,
    first: float,
    longest: float,
    attempts: int,
) -> None:
    settings = RetrySection(max_attempts=attempts, first_delay_s=first, max_delay_s=longest)
    attempt = Attempt(code=code, streak=streak, progressed=progressed, retry_after_s=retry_after_s, at=NOW)
    delay_s = decide(attempt, settings, jitter).delay_s
    if delay_s is not None:
        assert 0 <= delay_s <= max(longest * 1.25, MAX_RETRY_AFTER_S)


@given(jitter=jitters)
def test_what_the_server_asks_for_wins(jitter: float) -> None:
    attempt = Attempt(code=FailureCode.SERVER_BUSY, streak=0, progressed=False, retry_after_s=77.0, at=NOW)
    assert decide(attempt, SETTINGS, jitter).delay_s == 77.0


def test_a_server_can_not_ask_for_more_than_a_day() -> None:
    attempt = Attempt(code=FailureCode.SERVER_BUSY, streak=0, progressed=False, retry_after_s=1e9, at=NOW)
    assert decide(attempt, SETTINGS, 0.5).delay_s == MAX_RETRY_AFTER_S


def test_a_lost_worker_is_no_reason_to_wait_long() -> None:
    decision = decide(Attempt(code=FailureCode.WORKER_LOST, streak=0, progressed=False, at=NOW), SETTINGS, 1.0)
    assert decision.delay_s is not None
    assert decision.delay_s < 1


@given(
    code=st.sampled_from(sorted(NOT_THE_TASKS_FAULT)),
    streak=st.integers(0, 10**6),
    stuck_s=st.none() | st.floats(0, 1e8),
    jitter=jitters,
)
def test_what_is_not_the_task_s_fault_is_never_counted_nor_given_up(
    code: FailureCode, streak: int, stuck_s: float | None, jitter: float
) -> None:
    since = None if stuck_s is None else NOW - stuck_s
    decision = decide(Attempt(code=code, streak=streak, progressed=False, at=NOW, stuck_since=since), SETTINGS, jitter)
    assert decision.streak == streak
    assert decision.delay_s is not None
    assert decision.delay_s <= LONGEST_LOOK_S * 1.25


def test_a_network_that_stays_down_is_looked_at_less_and_less_often_down_to_every_half_minute() -> None:
    at, since, delays = NOW, None, []
    for _ in range(6):
        attempt = Attempt(code=FailureCode.NETWORK_DOWN, streak=3, progressed=False, at=at, stuck_since=since)
        decision = decide(attempt, SETTINGS, 0.5)
        assert decision.delay_s is not None
        delays.append(decision.delay_s)
        since, at = decision.stuck_since, at + decision.delay_s
    assert delays == [5, 10, 20, 30, 30, 30]


def test_a_task_that_only_failed_for_too_long_is_given_up() -> None:
    patient = RetrySection(max_attempts=0, no_progress_limit_s=1000)
    for stuck_s, goes_on in ((999.0, True), (1000.0, False)):
        attempt = Attempt(code=FailureCode.CONNECT, streak=50, progressed=False, at=NOW, stuck_since=NOW - stuck_s)
        assert (decide(attempt, patient, 0.5).delay_s is not None) is goes_on


def test_no_limit_of_time_is_no_limit() -> None:
    endless = RetrySection(max_attempts=0, no_progress_limit_s=0)
    attempt = Attempt(code=FailureCode.CONNECT, streak=50, progressed=False, at=NOW, stuck_since=1.0)
    assert decide(attempt, endless, 0.5).delay_s is not None


def test_progress_and_a_network_that_was_down_start_the_clock_anew() -> None:
    patient = RetrySection(max_attempts=0, no_progress_limit_s=1000)
    moved = Attempt(code=FailureCode.CONNECT, streak=50, progressed=True, at=NOW, stuck_since=1.0)
    assert decide(moved, patient, 0.5).stuck_since == NOW
    down = Attempt(code=FailureCode.NETWORK_DOWN, streak=50, progressed=False, at=NOW, stuck_since=1.0)
    assert decide(down, patient, 0.5).stuck_since == NOW
    again = Attempt(code=FailureCode.CONNECT, streak=50, progressed=False, at=NOW + 9, stuck_since=NOW)
    assert decide(again, patient, 0.5).stuck_since == NOW


def test_a_clock_that_was_set_back_does_not_make_a_task_stuck() -> None:
    attempt = Attempt(code=FailureCode.CONNECT, streak=1, progressed=False, at=NOW, stuck_since=NOW + 1e6)
    assert decide(attempt, SETTINGS, 0.5).delay_s is not None
