"""A rate limit is kept over any stretch of time, is used in full, and follows when it is changed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_lib.worker.transfer.rate_limiter import RateLimiter

KIB = 1024
CHUNK = 16 * KIB
"""What libcurl hands over at once."""
LEAST_BURST = 16 * KIB

rates = st.integers(1, 10**9)
sizes = st.integers(1, CHUNK)


def burst_of(rate_bps: int) -> float:
    """Return what may be taken at once after a rest."""
    return max(LEAST_BURST, rate_bps / 10)


def take_all(limiter: RateLimiter, now: float, size_bytes: int = CHUNK) -> int:
    """Take pieces until the limiter says no."""
    taken = 0
    while limiter.may_take(now):
        limiter.take(size_bytes)
        taken += size_bytes
        assert taken < 10**9, "there is no end to what may be taken at once"
    return taken


def follow(limiter: RateLimiter, now: float, seconds: float) -> tuple[int, float]:
    """Take as much as may be for some seconds, waiting as the limiter says; return the bytes and the time then."""
    until, taken = now + seconds, 0
    while now < until:
        taken += take_all(limiter, now)
        now += max(limiter.wait_s(), 1e-6)
    return taken, now


@given(rate_bps=rates, steps=st.lists(st.tuples(st.floats(0, 5), sizes), min_size=1, max_size=60))
def test_no_stretch_of_time_has_more_than_the_rate_and_one_burst(rate_bps: int, steps: list[tuple[float, int]]) -> None:
    limiter = RateLimiter(rate_bps, 0.0)
    now, taken = 0.0, [(0.0, 0)]
    for pause_s, size_bytes in steps:
        now += pause_s
        if limiter.may_take(now):
            limiter.take(size_bytes)
            taken.append((now, size_bytes))
    for first in range(len(taken)):
        total = 0
        for moment, size_bytes in taken[first:]:
            allowed = (moment - taken[first][0]) * rate_bps + burst_of(rate_bps)
            assert total <= allowed * (1 + 1e-9) + 1e-3, "what came before the last piece is paid for"
            total += size_bytes


@pytest.mark.parametrize("rate_bps", [5_000, 100_000, 1_000_000, 100_000_000])
def test_all_of_the_rate_is_used_by_who_always_wants_more(rate_bps: int) -> None:
    taken, now = follow(RateLimiter(rate_bps, 0.0), 0.0, 100.0)
    assert rate_bps * now - CHUNK <= taken <= rate_bps * now + burst_of(rate_bps) + CHUNK


def test_the_first_moment_has_no_burst() -> None:
    assert take_all(RateLimiter(1_000_000, 7.0), 7.0) == CHUNK


@given(rate_bps=rates, rest_s=st.floats(10, 1e6))
def test_a_rest_saves_up_no_more_than_one_burst(rate_bps: int, rest_s: float) -> None:
    limiter = RateLimiter(rate_bps, 0.0)
    assert take_all(limiter, rest_s) <= burst_of(rate_bps) + CHUNK


@given(rate_bps=rates, debt=st.integers(1, 10**9), begun=st.floats(0, 1e6))
def test_after_the_wait_there_is_no_debt_unless_it_was_too_long_to_wait_for(
    rate_bps: int, debt: int, begun: float
) -> None:
    limiter = RateLimiter(rate_bps, begun)
    limiter.take(debt)
    wait_s = limiter.wait_s()
    assert 0 < wait_s <= 2.0
    assert not limiter.may_take(begun)
    is_whole = debt / rate_bps <= 2.0
    rounding_s = 4 * math.ulp(begun + wait_s)
    assert limiter.may_take(begun + wait_s + rounding_s) == is_whole or math.isclose(debt / rate_bps, 2.0)


def test_there_is_nothing_to_wait_for_without_a_debt() -> None:
    limiter = RateLimiter(1000, 0.0)
    assert limiter.may_take(0.0)
    assert limiter.wait_s() == 0.0


def test_a_debt_stays_when_the_limit_is_changed() -> None:
    limiter = RateLimiter(1000, 0.0)
    limiter.take(10_000)
    limiter.set_rate(10_000, 0.0)
    assert limiter.wait_s() == pytest.approx(1.0)
    assert not limiter.may_take(0.9)
    assert limiter.may_take(1.1)


def test_the_time_before_a_change_counts_at_the_rate_of_before() -> None:
    limiter = RateLimiter(1000, 0.0)
    limiter.take(10_000)
    limiter.set_rate(1_000_000, 9.0)
    assert limiter.wait_s() == pytest.approx(0.001)


def test_what_a_fast_limit_saved_up_is_gone_under_a_slow_one() -> None:
    limiter = RateLimiter(100_000_000, 0.0)
    assert limiter.may_take(10.0)
    limiter.set_rate(1000, 10.0)
    assert take_all(limiter, 10.0) <= LEAST_BURST + CHUNK


@given(steps=st.lists(st.tuples(st.integers(1_000, 10**7), st.floats(0.1, 3)), min_size=1, max_size=8))
def test_changed_limits_are_kept_all_together(steps: list[tuple[int, float]]) -> None:
    limiter = RateLimiter(steps[0][0], 0.0)
    now, taken, allowed, most_late = 0.0, 0, 0.0, 0.0
    for rate_bps, seconds in steps:
        limiter.set_rate(rate_bps, now)
        before = now
        more, now = follow(limiter, now, seconds)
        taken += more
        allowed += (now - before) * rate_bps
        most_late = max(most_late, burst_of(rate_bps))
    assert taken <= allowed + most_late + CHUNK + 1


def test_however_low_the_rate_the_bucket_is_looked_at_often_enough_to_see_a_new_one() -> None:
    limiter = RateLimiter(1, 0.0)
    limiter.take(10**6)
    assert limiter.wait_s() <= 2.0
    limiter.set_rate(10**9, 2.0)
    assert limiter.may_take(2.1)
