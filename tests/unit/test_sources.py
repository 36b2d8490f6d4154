"""The URL of a file and its mirrors: which one is asked, how often, and what makes their bytes parts of one file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_lib.contract.failures import FailureCode
from autodl_lib.worker.network.response import Agreement, RemoteVersion
from autodl_lib.worker.network.verdicts import Verdict
from autodl_lib.worker.transfer.sources import Source, Sources

A, B, C, D = "http://a.example/f", "https://b.example/f", "http://c.example/f", "http://d.example/f"
FTP = "ftp://e.example/f"
GONE = Verdict(code=FailureCode.REMOTE_MISSING, message="404")
BUSY = Verdict(code=FailureCode.SERVER_BUSY, message="503")
DATED = RemoteVersion(size=9, etag=None, last_modified="Mon, 01 Jan 2024 00:00:00 GMT")
UNDATED = RemoteVersion(size=9, etag=None, last_modified=None)
LONG_S = 10**6


def sources(
    *urls: str, granted: tuple[int, ...] = (4, 4, 4, 4), has_checksum: bool = False, preferred: int = 0
) -> Sources:
    """Make the sources of a file."""
    return Sources(urls or (A, B), granted, has_checksum=has_checksum, preferred=preferred)


def fail_until_given_up(source: Source, now: float = 0.0) -> int:
    """Fail again and again; return after how many times it was too often."""
    return next(count for count in range(1, 100) if source.failed(now))


# --- which one to begin with ---


@pytest.mark.parametrize(("preferred", "url"), [(0, A), (1, B), (2, C), (3, A), (5, C)])
def test_the_preferred_source_is_the_first_to_be_asked(preferred: int, url: str) -> None:
    opening = sources(A, B, C, preferred=preferred).opening()
    assert opening is not None
    assert opening.url == url


def test_where_the_preferred_source_is_given_up_the_next_one_is_asked_and_after_the_last_the_first() -> None:
    of_file = sources(A, B, C, preferred=1)
    asked = []
    while (opening := of_file.opening()) is not None:
        asked.append(opening.url)
        opening.failure = BUSY
    assert asked == [B, C, A]


def test_a_single_file_has_its_url_as_its_main_source() -> None:
    of_file = sources(A)
    assert of_file.main is of_file.opening() is of_file.all[0]
    assert of_file.main.host == "a.example"


# --- further connections ---


def fill(of_file: Sources, now: float = 0.0) -> list[str]:
    """Open as many connections as there may be; return where."""
    opened = []
    while (source := of_file.for_range(now)) is not None:
        source.connections += 1
        opened.append(source.url)
    return opened


@given(granted=st.lists(st.integers(0, 9), min_size=1, max_size=4), taken=st.lists(st.integers(0, 9), max_size=4))
def test_no_source_ever_gets_more_connections_than_it_was_granted(granted: list[int], taken: list[int]) -> None:
    of_file = sources(*(A, B, C, D)[: len(granted)], granted=tuple(granted))
    before = [0] * len(granted)
    for source, count in zip(of_file.all, taken, strict=False):
        source.connections = before[source.index] = count
    fill(of_file)
    for source in of_file.all:
        assert source.connections == max(granted[source.index], before[source.index])


def test_connections_are_spread_evenly_over_what_was_granted() -> None:
    opened = fill(sources(A, B, granted=(6, 2)))
    assert opened.count(A) == 6
    assert opened[:4].count(B) == 1
    assert fill(sources(A, B, C))[:3] == [A, B, C]


def test_a_source_without_a_grant_gets_none() -> None:
    assert set(fill(sources(A, B, C, granted=(2,)))) == {A}
    assert fill(sources(A, granted=())) == []


def test_grants_beyond_the_last_source_are_left_aside() -> None:
    assert len(fill(sources(A, granted=(1, 5, 5)))) == 1


def test_a_new_grant_counts_at_once_and_closes_nothing_by_itself() -> None:
    of_file = sources(A, B, granted=(3, 3))
    fill(of_file)
    of_file.grant((1, 4))
    assert [source.connections for source in of_file.all] == [3, 3]
    assert fill(of_file) == [B]
    assert of_file.most_connections() == 5
    of_file.grant((0, 0))
    assert of_file.for_range(0.0) is None
    assert of_file.most_connections() == 0


def test_a_source_that_was_given_up_or_sends_no_ranges_gets_none() -> None:
    of_file = sources(A, B, C)
    of_file.all[0].failure = GONE
    of_file.all[1].sends_ranges = False
    assert of_file.most_connections() == 4
    assert set(fill(of_file)) == {C}


def test_other_protocols_than_http_are_not_asked_for_ranges() -> None:
    assert set(fill(sources(FTP, "sftp://e.example/f", "HTTPS://B.example/f"))) == {"HTTPS://B.example/f"}


def test_what_can_not_be_asked_for_ranges_is_not_counted_as_room_for_connections() -> None:
    of_file = sources(A, FTP, granted=(2, 6))
    assert of_file.most_connections() == len(fill(of_file))


# --- failures ---


def test_a_source_that_failed_is_left_alone_for_a_while_and_longer_each_time() -> None:
    [source] = sources(A).all
    pauses = []
    for _ in range(4):
        source.failed(100.0)
        pauses.append(source.rests_until_mono() - 100.0)
        assert not source.is_willing(source.rests_until_mono() - 0.001)
        assert source.is_willing(source.rests_until_mono())
    assert pauses == sorted(set(pauses))
    assert 0 < pauses[0] <= 1


def test_the_pause_has_a_bound() -> None:
    [source] = sources(A).all
    for _ in range(100):
        source.failed(0.0)
    assert source.rests_until_mono() <= 60


def test_a_server_that_refuses_a_second_connection_for_days_is_still_only_left_alone_for_a_while() -> None:
    [source] = sources(A).all
    for _ in range(2000):
        source.failed(0.0)
    assert source.rests_until_mono() <= 60


def test_too_many_failures_in_a_row_are_told_and_a_good_answer_is_a_new_begin() -> None:
    [source] = sources(A).all
    most = fail_until_given_up(source)
    assert most > 1
    for _ in range(5):
        source.answered(0.1)
        assert fail_until_given_up(source) == most


def test_one_source_at_rest_leaves_the_others_open() -> None:
    of_file = sources(A, B)
    of_file.all[0].failed(0.0)
    assert set(fill(of_file)) == {B}
    assert set(fill(of_file, LONG_S)) == {A}


def test_a_source_at_rest_may_still_be_the_one_to_begin_with() -> None:
    of_file = sources(A)
    of_file.main.failed(0.0)
    assert of_file.opening() is of_file.main


def test_as_long_as_a_source_is_left_there_is_no_verdict() -> None:
    of_file = sources(A, B)
    assert of_file.verdict() is None
    of_file.all[1].failure = GONE
    assert of_file.verdict() is None


@pytest.mark.parametrize("reasons", [(GONE, BUSY), (BUSY, GONE), (BUSY, BUSY)])
def test_where_one_failure_may_pass_that_is_the_verdict(reasons: tuple[Verdict, Verdict]) -> None:
    of_file = sources(A, B)
    for source, reason in zip(of_file.all, reasons, strict=True):
        source.failure = reason
    assert of_file.verdict() is BUSY


def test_where_no_failure_may_pass_the_first_sources_is_the_verdict() -> None:
    of_file = sources(A, B)
    other = Verdict(code=FailureCode.AUTHENTICATION, message="401")
    of_file.all[0].failure, of_file.all[1].failure = GONE, other
    assert of_file.verdict() is GONE


# --- the delay ---


def test_the_first_answer_says_how_long_one_takes_and_later_ones_move_it_towards_theirs() -> None:
    [source] = sources(A).all
    assert source.delay_s == 0
    source.answered(0.4)
    assert source.delay_s == 0.4
    source.answered(0.1)
    assert 0.1 < source.delay_s < 0.4
    for _ in range(50):
        source.answered(0.1)
    assert source.delay_s == pytest.approx(0.1, rel=0.01)


@given(delays=st.lists(st.floats(0, 60), min_size=1, max_size=20))
def test_the_delay_stays_between_the_shortest_and_the_longest(delays: list[float]) -> None:
    [source] = sources(A).all
    for delay_s in delays:
        source.answered(delay_s)
    assert min(delays) - 1e-9 <= source.delay_s <= max(delays) + 1e-9


# --- what a range must agree in ---


def test_the_source_that_named_the_version_must_name_it_again() -> None:
    of_file = sources(A, B)
    assert of_file.agreement(of_file.main, DATED, is_first=False) is Agreement.VERSION


def test_a_mirror_must_agree_in_size_and_a_validator() -> None:
    of_file = sources(A, B)
    assert of_file.agreement(of_file.all[1], DATED, is_first=False) is Agreement.MIRROR


def test_where_a_mirror_named_the_version_the_url_is_the_mirror() -> None:
    of_file = sources(A, B)
    of_file.main = of_file.all[1]
    assert of_file.agreement(of_file.all[0], DATED, is_first=False) is Agreement.MIRROR
    assert of_file.agreement(of_file.all[1], DATED, is_first=False) is Agreement.VERSION


def test_a_part_of_an_earlier_attempt_may_be_a_mirrors() -> None:
    of_file = sources(A, B)
    assert of_file.agreement(of_file.main, DATED, is_first=True) is Agreement.MIRROR
    alone = sources(A)
    assert alone.agreement(alone.main, DATED, is_first=True) is Agreement.VERSION


@pytest.mark.parametrize("is_first", [False, True])
def test_the_size_alone_is_enough_only_where_a_checksum_decides(is_first: bool) -> None:
    for version in (DATED, UNDATED):
        for urls in ((A,), (A, B)):
            of_file = sources(*urls)
            for source in of_file.all:
                assert of_file.agreement(source, version, is_first=is_first) is not Agreement.SIZE
    checked = sources(A, B, has_checksum=True)
    assert checked.agreement(checked.all[1], DATED, is_first=is_first) is Agreement.SIZE
    assert checked.agreement(checked.main, UNDATED, is_first=is_first) is Agreement.SIZE


def test_a_checksum_does_not_excuse_the_same_source_from_naming_the_same_version() -> None:
    checked = sources(A, has_checksum=True)
    assert checked.agreement(checked.main, DATED, is_first=False) is Agreement.VERSION
    assert checked.agreement(checked.main, DATED, is_first=True) is Agreement.VERSION


# --- mirrors on one host ---


def test_a_mirror_on_the_url_s_own_host_shares_its_grant() -> None:
    other = A + "/again"
    of_file = sources(A, other, granted=(3, 3))
    assert of_file.most_connections() == 3
    assert len(fill(of_file)) == 3


def test_a_source_that_may_not_be_asked_now_is_no_way_out_and_no_end() -> None:
    of_file = sources(A, B, granted=(1, 0))
    of_file.all[0].failure = GONE
    assert of_file.opening() is None
    verdict = of_file.verdict()
    assert verdict is not None
    assert verdict.may_pass()
