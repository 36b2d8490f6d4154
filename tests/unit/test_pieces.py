"""Who fetches what: each byte is given to one connection, all are done together, and bad ones are done without."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_download import MB, Download, Line, by_place, in_turn, one_after_the_other, pieces_worth

from autodl_lib.worker.transfer.steering import (
    LEAST_PIECE_BYTES,
    Flow,
    Piece,
    Prospect,
    crawler,
    next_piece,
    usual_speed_bps,
)

speeds = st.lists(st.floats(0.5 * MB, 8 * MB), min_size=1, max_size=8)
delays = st.sampled_from([0.0, 0.02, 0.1, 0.3])


# --- whole downloads: who fetches what (each step is checked by the simulation) ---


@settings(max_examples=60, deadline=None)
@given(first=st.floats(0.05 * MB, 8 * MB), others=st.lists(st.floats(0, 8 * MB), max_size=7), delay_s=delays)
def test_every_byte_is_fetched_by_one_connection_or_by_two_in_a_race(
    first: float, others: list[float], delay_s: float
) -> None:
    speed = in_turn(first, *others)
    download = Download(size_bytes=5 * MB, speed=speed, most=1 + len(others), delay_s=delay_s).run()
    assert download.done.ranges() == ((0, 5 * MB),)


@settings(max_examples=60, deadline=None)
@given(rates=speeds, delay_s=delays, seconds=st.floats(0.1, 4))
def test_hardly_a_byte_is_fetched_twice(rates: list[float], delay_s: float, seconds: float) -> None:
    size = int(seconds * sum(rates))
    download = Download(size_bytes=size, speed=by_place(*rates), most=len(rates), delay_s=delay_s).run()
    assert download.fetched <= 1.02 * size + 2 * LEAST_PIECE_BYTES * len(rates)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(rates=speeds, delay_s=delays, seconds=st.floats(0.1, 6))
def test_all_connections_are_done_at_nearly_the_same_time(rates: list[float], delay_s: float, seconds: float) -> None:
    size = int(seconds * sum(rates))
    download = Download(size_bytes=size, speed=by_place(*rates), most=len(rates), delay_s=delay_s).run()
    assert download.now <= 1.1 * seconds + 12 * delay_s + 0.6


@pytest.mark.parametrize("delay_s", [0.0, 0.04, 0.2])
def test_equal_connections_take_equal_shares(delay_s: float) -> None:
    download = Download(size_bytes=320 * MB, speed=in_turn(4 * MB), most=8, delay_s=delay_s).run()
    assert download.now <= 10 + 0.3 + 4 * delay_s


@pytest.mark.parametrize("most", [2, 8, 64])
def test_a_file_is_not_cut_into_a_flood_of_tiny_pieces(most: int) -> None:
    download = Download(size_bytes=most * 10 * MB, speed=in_turn(MB, 0.8 * MB, 1.2 * MB), most=most).run()
    assert len(download.opened) <= pieces_worth(download.size_bytes, most) / 2


def test_a_small_file_is_cut_into_few_pieces() -> None:
    download = Download(size_bytes=256 * 1024, speed=in_turn(50_000), most=16).run()
    assert len(download.opened) <= 256 * 1024 / LEAST_PIECE_BYTES


def test_one_connection_fetches_all_in_one_piece() -> None:
    download = Download(size_bytes=10 * MB, speed=in_turn(MB), most=1).run()
    assert download.opened == [Piece(start=0, end=10 * MB)]


# --- whole downloads: connections that stall or crawl ---


@pytest.mark.parametrize("most", [2, 4, 8])
@pytest.mark.parametrize("bad_bps", [0.0, 1000.0, 0.2 * MB])
def test_a_bad_connection_in_four_hardly_delays_the_end(most: int, bad_bps: float) -> None:
    speed = in_turn(4 * MB, 4 * MB, 4 * MB, bad_bps)
    download = Download(size_bytes=most * 12 * MB, speed=speed, most=most).run()
    assert download.now <= 1.1 * 3 / 0.75 + 0.5


@pytest.mark.parametrize("bad_bps", [0.0, 1000.0, 0.2 * MB])
@pytest.mark.parametrize("bad", [1, 2, 4, 7])
def test_places_that_stay_bad_are_done_without(bad: int, bad_bps: float) -> None:
    good = 8 - bad
    speed = by_place(*[4 * MB] * good, *[bad_bps] * bad)
    download = Download(size_bytes=good * 20 * MB, speed=speed, most=8).run()
    assert download.now <= 1.15 * 5 + 1


@pytest.mark.parametrize("since_s", [0.4, 1.0, 2.3])
def test_connections_that_stall_on_the_way_are_replaced(since_s: float) -> None:
    def speed(line: Line, _: int) -> float:
        return 0.0 if line.key % 2 == 0 and line.age_s > since_s else 4 * MB

    download = Download(size_bytes=80 * MB, speed=speed, most=8).run()
    assert download.now <= 1.3 * 80 / 32 + 1.5


def test_a_connection_that_stalls_alone_is_replaced() -> None:
    def speed(line: Line, _: int) -> float:
        return 0.0 if line.key == 0 and line.age_s > 1 else 4 * MB

    download = Download(size_bytes=20 * MB, speed=speed, most=1).run()
    assert len(download.opened) == 2
    assert download.now <= 5 + 1.5


@pytest.mark.parametrize("most", [2, 4])
def test_a_stall_at_the_very_end_is_raced_and_waited_for_by_nobody(most: int) -> None:
    stalled: set[int] = set()

    def speed(line: Line, _: int) -> float:
        left = line.end - line.position
        if line.key in stalled or (not stalled and line.age_s > 0.5 and left < LEAST_PIECE_BYTES):
            stalled.add(line.key)
            return 0.0
        return 4 * MB

    download = Download(size_bytes=40 * MB, speed=speed, most=most).run()
    assert stalled
    assert download.now <= 40 / 4 / most * 1.1 + 1.5


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_a_server_that_lets_connections_wait_for_each_other_is_hardly_slower_for_it(at_once: int) -> None:
    speed = one_after_the_other(8 * MB, at_once)
    download = Download(size_bytes=at_once * 40 * MB, speed=speed, most=8).run()
    assert download.now <= 1.4 * 5 + 1


def test_where_all_become_slow_the_file_comes_slowly_and_comes() -> None:
    def speed(line: Line, _: int) -> float:
        return 4 * MB if line.begun + line.age_s < 1 else 0.1 * MB

    download = Download(size_bytes=40 * MB, speed=speed, most=8).run()
    assert download.now <= 1.15 * (1 + 8 / 0.8) + 5


# --- single decisions ---


def flow(key: int = 0, **fields: float) -> Flow:
    """Make a connection that has been at work for long, at 1 MB/s, with 10 MB before it."""
    given_fields = {"position": 0, "end": 10 * MB, "speed_bps": MB, "age_s": 100.0, **fields}
    return Flow(key=key, **given_fields)  # type: ignore[arg-type]


USUAL = Prospect(speed_bps=MB, delay_s=0.1)

flows_at_work = st.lists(
    st.builds(
        Flow,
        key=st.just(0),
        position=st.integers(0, 10**10),
        end=st.integers(0, 10**10),
        speed_bps=st.one_of(st.just(0.0), st.floats(0.001, 1e9)),
        age_s=st.floats(0, 1e5),
        in_race=st.booleans(),
    ).filter(lambda one: one.position <= one.end),
    max_size=8,
).map(lambda flows: [Flow(**{**fields_of(one), "key": key}) for key, one in enumerate(flows)])
prospects = st.builds(Prospect, speed_bps=st.one_of(st.just(0.0), st.floats(0.001, 1e9)), delay_s=st.floats(0, 100))


def fields_of(one: Flow) -> dict[str, float]:
    """Return a flow's fields."""
    return {name: getattr(one, name) for name in Flow.__slots__}


@given(flows=flows_at_work, prospect=prospects)
def test_a_piece_is_the_end_of_one_connections_or_all_of_it_in_a_race(flows: list[Flow], prospect: Prospect) -> None:
    piece = next_piece([], flows, prospect)
    if piece is None:
        return
    assert piece.victim is not None
    victim = flows[piece.victim]
    assert not victim.in_race
    assert piece.end == victim.end
    assert (piece.start == victim.position) if piece.is_race else (piece.start > victim.position)
    assert piece.start < piece.end


@given(flows=flows_at_work, prospect=prospects)
def test_only_one_that_is_much_slower_than_usual_is_replaced(flows: list[Flow], prospect: Prospect) -> None:
    key = crawler(flows, prospect)
    if key is not None:
        assert flows[key].speed_bps < prospect.speed_bps / 2
        assert flows[key].remaining_s() > prospect.delay_s + flows[key].remaining_bytes() / prospect.speed_bps


@given(flows=flows_at_work, prospect=prospects, gaps=st.lists(st.just((5, 9)), min_size=1, max_size=3))
def test_what_nobody_fetches_comes_first(
    flows: list[Flow], prospect: Prospect, gaps: Sequence[tuple[int, int]]
) -> None:
    assert next_piece(gaps, flows, prospect) == Piece(start=5, end=9)


@given(flows=flows_at_work)
def test_the_usual_speed_is_that_of_some_connections(flows: list[Flow]) -> None:
    rates = [one.speed_bps for one in flows if one.speed_bps > 0]
    usual = usual_speed_bps(flows)
    assert (min(rates) <= usual <= max(rates)) if rates else usual == 0


def test_the_usual_speed_is_not_brought_down_by_half_of_them() -> None:
    flows = [flow(key, speed_bps=rate) for key, rate in enumerate([MB, MB, 1.0, 1.0, 0.0])]
    assert usual_speed_bps(flows) == MB


def test_the_piece_that_will_be_done_last_is_shared_first() -> None:
    flows = [
        flow(0, end=MB),
        flow(1, position=20 * MB, end=26 * MB),
        flow(2, position=40 * MB, end=60 * MB, speed_bps=8 * MB),
    ]
    piece = next_piece([], flows, USUAL)
    assert piece is not None
    assert piece.victim == 1


def test_both_are_done_at_the_same_time() -> None:
    for speed_bps in (0.1 * MB, MB, 9 * MB):
        victim = flow(speed_bps=speed_bps)
        piece = next_piece([], [victim], USUAL)
        assert piece is not None
        left_s = (piece.start - victim.position) / speed_bps
        assert left_s == pytest.approx(0.1 + (piece.end - piece.start) / MB, rel=0.01)


@pytest.mark.parametrize(
    "one",
    [
        flow(end=0),
        flow(end=LEAST_PIECE_BYTES),
        flow(in_race=True),
        flow(end=100_000),  # over before another one would begin
    ],
)
def test_what_gains_nothing_is_not_shared(one: Flow) -> None:
    assert next_piece([], [one], USUAL) is None


def test_what_has_only_begun_is_thought_to_be_as_fast_as_the_others() -> None:
    new = flow(end=100_000, speed_bps=0, age_s=0.0)
    assert next_piece([], [new], USUAL) is None
    assert crawler([new], USUAL) is None


@pytest.mark.parametrize("left", [1, 1000, LEAST_PIECE_BYTES - 1, LEAST_PIECE_BYTES, 10 * MB])
@pytest.mark.parametrize("usual_bps", [0.1 * MB, MB / 3, MB, 7.7 * MB])
def test_a_connection_that_stalled_is_raced_or_replaced_however_little_it_has_left(left: int, usual_bps: float) -> None:
    stalled = flow(end=left, speed_bps=0)
    prospect = Prospect(speed_bps=usual_bps, delay_s=0.1)
    piece = next_piece([], [stalled], prospect)
    assert piece == Piece(start=0, end=left, victim=0, is_race=True) or crawler([stalled], prospect) == 0


def test_a_race_is_never_joined_by_a_third() -> None:
    both = [flow(0, speed_bps=10, in_race=True), flow(1, speed_bps=10, in_race=True)]
    assert next_piece([], both, USUAL) is None


def test_while_no_speed_is_known_nothing_is_shared_or_replaced() -> None:
    unknown = Prospect(speed_bps=0.0, delay_s=0.1)
    assert next_piece([], [flow(speed_bps=0)], unknown) is None
    assert crawler([flow(speed_bps=0)], unknown) is None


def test_the_slowest_of_those_that_crawl_is_replaced() -> None:
    flows = [flow(0), flow(1, speed_bps=0.1 * MB), flow(2, speed_bps=0.01 * MB), flow(3, speed_bps=0, age_s=0.0)]
    assert crawler(flows, USUAL) == 2


def test_one_that_crawls_but_is_nearly_done_is_left_to_it() -> None:
    assert crawler([flow(end=1000, speed_bps=0.1 * MB)], USUAL) is None
