"""Bytes a second are shared fairly between users and between their transfers, and follow what each can use."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_lib.contract.settings import LimitsSection, Settings, TransferSection
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.store.rows import SetRates
from autodl_lib.supervisor.scheduling.rate_control import RateControl
from autodl_lib.supervisor.scheduling.rate_limits import DAEMON, RateLimits, least
from autodl_lib.supervisor.scheduling.rate_shares import FLOOR_BPS, Demand, share_rates, wanted_bps

MB = 1_000_000
ALICE, BOB = Uid(1001), Uid(1002)

rates = st.integers(1, 10**9)
demands = st.lists(
    st.builds(
        Demand,
        uid=st.sampled_from([ALICE, BOB, Uid(3)]),
        wanted_bps=st.one_of(st.just(math.inf), st.floats(0, 1e9)),
        most_bps=st.one_of(st.just(math.inf), st.floats(1, 1e9)),
    ),
    min_size=1,
    max_size=12,
)


# --- the shares ---


@given(daemon=st.none() | rates, users=st.dictionaries(st.sampled_from([ALICE, BOB]), rates), demands=demands)
def test_no_limit_is_ever_exceeded(daemon: int | None, users: dict[Uid, int], demands: list[Demand]) -> None:
    shares = share_rates(daemon, users, demands)
    for share, demand in zip(shares, demands, strict=True):
        assert share != 0, "0 would be no limit"
        assert (share is None) <= (daemon is None and demand.uid not in users and math.isinf(demand.most_bps))
        assert share is None or share <= max(1, demand.most_bps)
    if daemon is not None:
        assert sum(share or 0 for share in shares) <= daemon + len(shares)
    for uid, limit in users.items():
        of_user = [share or 0 for share, demand in zip(shares, demands, strict=True) if demand.uid == uid]
        assert sum(of_user) <= limit + len(of_user)


@given(daemon=st.integers(1000, 10**9), demands=demands)
def test_nothing_is_kept_back_that_somebody_may_take(daemon: int, demands: list[Demand]) -> None:
    shares = share_rates(daemon, {}, demands)
    total = sum(share or 0 for share in shares)
    assert total >= min(daemon, sum(demand.most_bps for demand in demands)) - len(demands) - 1e-3 * daemon


def test_users_share_evenly_whatever_the_number_of_their_transfers() -> None:
    shares = share_rates(90, {}, [Demand(uid=ALICE)] * 9 + [Demand(uid=BOB)])
    assert shares == [5] * 9 + [45]


def test_a_slow_transfer_leaves_the_rest_to_the_others() -> None:
    shares = share_rates(100, {}, [Demand(uid=ALICE, wanted_bps=10), Demand(uid=ALICE), Demand(uid=ALICE)])
    assert shares == [10, 45, 45]


def test_where_all_are_slow_what_is_left_is_theirs_to_grow_into() -> None:
    assert share_rates(100, {}, [Demand(uid=ALICE, wanted_bps=10), Demand(uid=BOB, wanted_bps=20)]) == [45, 55]


def test_a_user_s_limit_holds_and_the_others_have_what_it_leaves() -> None:
    assert share_rates(100, {ALICE: 20}, [Demand(uid=ALICE), Demand(uid=ALICE), Demand(uid=BOB)]) == [10, 10, 80]


def test_a_task_s_limit_holds_within_its_user_s_share() -> None:
    assert share_rates(100, {}, [Demand(uid=ALICE, most_bps=5), Demand(uid=ALICE)]) == [5, 95]


def test_no_limit_shares_nothing() -> None:
    assert share_rates(None, {}, [Demand(uid=ALICE), Demand(uid=BOB, most_bps=7)]) == [None, 7]


def test_one_that_uses_its_share_wants_more_and_a_slow_one_some_headroom() -> None:
    assert wanted_bps(95, 100) == math.inf
    assert wanted_bps(MB, 10 * MB) == 1.25 * MB
    assert wanted_bps(0, 10 * MB) == FLOOR_BPS
    assert wanted_bps(5, None) == math.inf


# --- the limits ---


def limits(daemon: int = 0, user: int = 0, stored: dict[Uid, SetRates] | None = None) -> RateLimits:
    settings = Settings(transfer=TransferSection(rate_bps=daemon), limits=LimitsSection(rate_bps=user))
    return RateLimits(settings, stored or {})


def test_of_several_limits_the_smallest_counts_and_nothing_is_none() -> None:
    assert least(0, 7, 5) == 5
    assert least(0, 0) == 0


@pytest.mark.parametrize(
    ("configured", "own", "ceiling", "counts"),
    [(0, 0, 0, 0), (10, 0, 0, 10), (10, 20, 0, 10), (10, 5, 7, 5), (0, 9, 7, 7)],
)
def test_a_user_never_has_more_than_was_configured_or_set_for_them(
    configured: int, own: int, ceiling: int, counts: int
) -> None:
    made = limits(user=configured, stored={ALICE: SetRates(own_bps=own, ceiling_bps=ceiling)})
    assert made.user_bps(ALICE) == counts
    assert made.user_bps(BOB) == configured


def test_what_was_set_for_the_daemon_counts_where_it_is_smaller() -> None:
    assert limits(daemon=10, stored={DAEMON: SetRates(own_bps=20)}).daemon_bps == 10
    assert limits(daemon=0, stored={DAEMON: SetRates(own_bps=20)}).daemon_bps == 20


# --- as things change ---


class Scene:
    """A control, and the speeds that its transfers report."""

    def __init__(self, made: RateLimits) -> None:
        self.speeds: dict[TaskId, int] = {}
        self.control = RateControl(made, self.speeds.get)

    def begin(self, lease: str, worker: str, uid: Uid = ALICE, most_bps: int = 0) -> int:
        self.control.add(lease, worker, uid, (TaskId(int(lease)), most_bps))
        self.told = dict(self.control.balance())
        return self.control.first_rate(lease)

    def tick(self, **speeds: int) -> dict[str, int]:
        self.speeds.update({TaskId(int(lease.strip("_"))): speed for lease, speed in speeds.items()})
        return dict(self.control.balance(tick=True))


def test_without_limits_nothing_is_told_and_nothing_ticks() -> None:
    scene = Scene(limits())
    assert scene.begin("1", "w1") == 0
    assert scene.begin("2", "w2", most_bps=500) == 500
    assert scene.told == {}
    assert not scene.control.is_active
    assert scene.tick(_1=10 * MB) == {}


def test_a_second_transfer_begins_with_its_share_and_the_first_is_told() -> None:
    scene = Scene(limits(daemon=10 * MB))
    assert scene.begin("1", "w1") == 10 * MB
    assert scene.begin("2", "w2") == 5 * MB
    assert scene.told == {"1": 5 * MB}
    scene.control.end("2")
    assert scene.control.balance() == [("1", 10 * MB)]


def test_tasks_that_a_worker_has_ahead_take_nothing_from_other_workers() -> None:
    scene = Scene(limits(daemon=10 * MB))
    for lease in ("1", "2", "3", "4"):
        assert scene.begin(lease, "w1") == 10 * MB
    assert scene.begin("5", "w2") == 5 * MB
    assert scene.told == dict.fromkeys(("1", "2", "3", "4"), 5 * MB)


def test_who_is_slow_leaves_the_rest_to_others_and_gets_it_back() -> None:
    scene = Scene(limits(daemon=10 * MB))
    scene.begin("1", "w1")
    scene.begin("2", "w2")
    told = scene.tick(_1=MB, _2=5 * MB)
    assert told == {"1": 1_250_000, "2": 8_750_000}
    assert scene.tick(_1=1_250_000, _2=8_750_000) == {"1": 5 * MB, "2": 5 * MB}


def test_a_small_change_is_not_worth_an_order_but_for_a_new_limit() -> None:
    made = limits(daemon=10 * MB)
    scene = Scene(made)
    scene.begin("1", "w1")
    made.set(DAEMON, SetRates(own_bps=10 * MB - 1))
    assert scene.tick(_1=10 * MB) == {}
    scene.control.limits_changed()
    assert scene.control.balance() == [("1", 10 * MB - 1)]


def test_a_limit_that_is_taken_away_sets_all_free() -> None:
    made = limits(stored={DAEMON: SetRates(own_bps=MB)})
    scene = Scene(made)
    scene.begin("1", "w1", most_bps=700_000)
    scene.begin("2", "w2")
    made.set(DAEMON, SetRates())
    scene.control.limits_changed()
    assert dict(scene.control.balance()) == {"1": 700_000, "2": 0}
    assert not scene.control.is_active


def test_a_task_s_own_limit_can_change_while_it_runs() -> None:
    scene = Scene(limits())
    scene.begin("1", "w1")
    scene.control.set_task_limit("1", 300)
    assert scene.control.balance() == [("1", 300)]
    scene.control.set_task_limit("1", 0)
    assert scene.control.balance() == [("1", 0)]


def test_nothing_is_left_of_leases_that_ended() -> None:
    scene = Scene(limits(daemon=MB))
    scene.begin("1", "w1")
    scene.begin("2", "w1")
    scene.control.started("2")
    scene.control.end("1")
    scene.control.end("1")
    scene.control.end("2")
    assert scene.control.is_empty
    assert scene.control.balance() == []
