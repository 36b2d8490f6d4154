"""Connections to one host are shared fairly over all tasks, taken back before they are given anew, and never leak."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from autodl_lib.supervisor.scheduling.host_ledger import Grants, HostLedger
from autodl_lib.supervisor.scheduling.host_limits import Claim, fair_shares

HOST, OTHER, THIRD = "host:80", "other:80", "third:80"

claims = st.lists(
    st.builds(lambda want, least: Claim(want=want, least=min(want, least)), st.integers(1, 40), st.integers(0, 1)),
    max_size=12,
)


# --- the shares ---


@given(limit=st.integers(1, 64), claims=claims)
def test_nobody_gets_more_than_it_wants_or_less_than_it_needs_and_the_limit_holds(
    limit: int, claims: list[Claim]
) -> None:
    shares = fair_shares(limit, claims)
    assert all(claim.least <= share <= claim.want for share, claim in zip(shares, claims, strict=True))
    assert sum(shares) <= max(limit, sum(claim.least for claim in claims))


@given(limit=st.integers(1, 64), claims=claims)
def test_nothing_stays_free_while_somebody_wants_it(limit: int, claims: list[Claim]) -> None:
    shares = fair_shares(limit, claims)
    wants_more = any(share < claim.want for share, claim in zip(shares, claims, strict=True))
    assert not wants_more or sum(shares) >= limit


@given(limit=st.integers(1, 64), claims=claims)
def test_who_gets_less_than_wanted_has_at_most_one_less_than_anybody(limit: int, claims: list[Claim]) -> None:
    shares = fair_shares(limit, claims)
    for share, claim in zip(shares, claims, strict=True):
        if share < claim.want:
            assert all(other <= max(share + 1, 1) for other in shares)


@pytest.mark.parametrize(
    ("limit", "wants", "shares"),
    [(16, [4, 4], [4, 4]), (16, [4] * 10, [2] * 6 + [1] * 4), (10, [1, 8, 8], [1, 5, 4]), (2, [4] * 5, [1] * 5)],
)
def test_these_are_shared_so(limit: int, wants: list[int], shares: list[int]) -> None:
    assert fair_shares(limit, [Claim(want=want) for want in wants]) == shares


# --- the ledger ---


def ledger(limit: int = 8, want: int = 4) -> HostLedger:
    made = HostLedger()
    made.configure(limit, want)
    return made


def begin(held: HostLedger, lease: str, worker: str, *sources: str, want: int = 4) -> tuple[int, ...]:
    """Hand one task out as the pool does: taken up, shared, sent, begun."""
    held.add(lease, worker, sources or (HOST,), want)
    held.balance({})
    first = held.first_grant(lease)
    held.started(lease)
    return first


def test_a_task_that_is_alone_has_what_it_wants() -> None:
    assert begin(ledger(), "1", "w1") == (4,)


def test_tasks_that_start_together_start_with_their_fair_share() -> None:
    held = ledger(limit=16)
    for number in range(10):
        held.add(str(number), f"w{number}", (HOST,), 4)
    assert held.balance({}) == []
    assert sorted(held.first_grant(str(number)) for number in range(10)) == [(1,)] * 4 + [(2,)] * 6
    assert held.used(HOST) == 16


def test_128_small_tasks_of_one_host_in_one_worker_cost_that_host_one_connection() -> None:
    held = ledger(limit=16)
    for number in range(128):
        begin(held, str(number), "w", want=1)
    assert held.used(HOST) == 1
    assert held.hosts_of("w") == {HOST}


def test_a_place_on_a_full_host_is_free_only_when_its_holder_has_yielded() -> None:
    held = ledger(limit=4)
    assert begin(held, "1", "w1") == (4,)
    assert held.room() == {HOST: 0}
    [grant] = held.balance({HOST: 1})
    assert grant == ("1", (2,))
    assert held.room() == {HOST: 0}, "it has not answered"
    assert held.yielded("1", (2,)) == []
    assert held.room() == {HOST: 2}
    assert begin(held, "2", "w2") == (2,)


def test_a_place_on_a_full_host_is_free_when_its_holder_has_ended_without_an_answer() -> None:
    held = ledger(limit=4)
    begin(held, "1", "w1")
    held.balance({HOST: 1})
    held.end("1")
    assert held.room() == {}
    assert held.yielded("1", (2,)) == [], "an answer that crossed the end is nothing wrong"
    assert held.is_empty()


def test_what_a_holder_leaves_goes_to_the_others() -> None:
    held = ledger(limit=4)
    held.add("1", "w1", (HOST,), 4)
    held.add("2", "w2", (HOST,), 4)
    held.balance({})
    assert (held.first_grant("1"), held.first_grant("2")) == ((2,), (2,))
    held.started("1")
    held.end("2")
    assert held.balance({}) == [("1", (4,))]
    assert held.used(HOST) == 4


def test_a_task_that_has_not_begun_gets_more_when_it_does() -> None:
    held = ledger(limit=4)
    held.add("1", "w1", (HOST,), 4)
    held.add("2", "w2", (HOST,), 4)
    held.balance({})
    held.first_grant("1")
    held.end("2")
    assert held.balance({}) == []
    assert held.started("1") == [("1", (4,))]


def test_one_grant_at_a_time_is_under_way() -> None:
    held = ledger(limit=8, want=8)
    begin(held, "1", "w1", want=8)
    assert held.balance({HOST: 1}) == [("1", (4,))]
    assert held.balance({HOST: 3}) == [], "the first one was not answered yet"
    assert held.yielded("1", (4,)) == [("1", (2,))]


def test_a_lower_limit_is_for_running_tasks_too() -> None:
    held = ledger(limit=8)
    begin(held, "1", "w1")
    begin(held, "2", "w2")
    held.configure(3, 4)
    assert sorted(held.balance({})) in ([("1", (1,)), ("2", (2,))], [("1", (2,)), ("2", (1,))])


def test_a_mirror_on_a_full_host_gets_nothing_until_there_is_room() -> None:
    held = ledger(limit=2)
    begin(held, "1", "w1", OTHER)
    assert begin(held, "2", "w2", HOST, OTHER) == (2, 0)
    held.end("1")
    assert held.balance({}) == [("2", (2, 2))]


def test_a_mirror_makes_way_for_a_task_that_needs_the_host() -> None:
    held = ledger(limit=2)
    begin(held, "1", "w1", HOST, OTHER)
    assert held.hosts_of("w1") == {HOST}
    assert held.balance({OTHER: 2}) == [("1", (2, 0))]


def test_a_mirror_that_asked_to_be_left_alone_is_done_without() -> None:
    held = ledger()
    held.held_for = lambda _: {OTHER}
    assert begin(held, "1", "w1", HOST, OTHER, THIRD) == (4, 0, 4)
    assert begin(held, "2", "w2", OTHER, OTHER)[0] > 0, "its own host was seen to by the scheduler"


@pytest.mark.parametrize("connections", [(3,), (2, 0), ()])
def test_an_answer_to_no_such_grant_is_refused(connections: tuple[int, ...]) -> None:
    held = ledger(limit=4)
    begin(held, "1", "w1")
    held.balance({HOST: 1})
    assert held.yielded("1", connections) is None


def test_an_answer_without_a_grant_is_refused() -> None:
    held = ledger()
    begin(held, "1", "w1")
    assert held.yielded("1", (1,)) is None


@dataclasses.dataclass(slots=True)
class Granted:
    """A lease as an honest worker sees it."""

    worker: str
    sources: tuple[str, ...]
    using: tuple[int, ...] = ()
    grant: tuple[int, ...] | None = None


class AnyCourseOfThings(RuleBasedStateMachine):
    """Workers that obey late, end at any moment, and a limit that changes."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.held = ledger(limit=6)
        self.limit = 6
        self.most = dict.fromkeys((HOST, OTHER, THIRD), 6)
        self.known: dict[str, Granted] = {}
        self.number = 0

    def take(self, grants: Grants) -> None:
        for lease, connections in grants:
            assert self.known[lease].grant is None, "one grant at a time"
            self.known[lease].grant = connections
            before = self.known[lease].using
            self.known[lease].using = tuple(max(pair) for pair in zip(before, connections, strict=True))

    @rule(
        target=leases,
        worker=st.sampled_from(["w1", "w2", "w3", "w4"]),
        sources=st.lists(st.sampled_from([HOST, OTHER, THIRD]), min_size=1, max_size=3),
        want=st.integers(1, 5),
    )
    def hand_out(self, worker: str, sources: list[str], want: int) -> str:
        self.number += 1
        lease = str(self.number)
        if sources[0] not in self.held.hosts_of(worker) and self.held.room().get(sources[0], self.limit) <= 0:
            return lease  # the scheduler would not
        self.held.add(lease, worker, tuple(sources), want)
        self.known[lease] = Granted(worker, tuple(sources))
        self.take(self.held.balance({}))
        self.known[lease].using = self.held.first_grant(lease)
        assert self.known[lease].using[0] >= 1, "a task that is handed out can begin"
        return lease

    @rule(lease=leases)
    def start(self, lease: str) -> None:
        self.take(self.held.started(lease))

    @rule(lease=leases)
    def answer(self, lease: str) -> None:
        known = self.known.get(lease)
        if known is not None and known.grant is not None:
            known.using, answered, known.grant = known.grant, known.grant, None
            following = self.held.yielded(lease, answered)
            assert following is not None
            self.take(following)

    @rule(lease=consumes(leases))
    def end(self, lease: str) -> None:
        self.held.end(lease)
        self.known.pop(lease, None)

    @rule(waiting=st.dictionaries(st.sampled_from([HOST, OTHER]), st.integers(1, 4)))
    def balance(self, waiting: dict[str, int]) -> None:
        self.take(self.held.balance(waiting))

    @rule(limit=st.integers(1, 8))
    def configure(self, limit: int) -> None:
        self.limit = limit
        self.most = {host: max(limit, self.held.used(host)) for host in self.most}
        self.held.configure(limit, 4)

    def occupied(self, host: str) -> dict[str, int]:
        """Return by worker what the leases may be using: what the ledger must not believe to be less."""
        most: dict[str, int] = {}
        for known in self.known.values():
            for index, (source, using) in enumerate(zip(known.sources, known.using, strict=True)):
                if source == host:
                    most[known.worker] = max(most.get(known.worker, 0), using, 1 if index == 0 else 0)
        return most

    @invariant()
    def what_is_in_use_is_in_the_books(self) -> None:
        for host in self.most:
            assert self.held.used(host) >= sum(self.occupied(host).values())
        if not self.known:
            assert self.held.is_empty()

    @invariant()
    def the_limit_holds_but_for_what_was_given_under_a_higher_one(self) -> None:
        for host, most in self.most.items():
            assert self.held.used(host) <= most
            self.most[host] = max(self.limit, self.held.used(host))

    def teardown(self) -> None:
        for lease in list(self.known):
            self.held.end(lease)
        assert self.held.is_empty(), "nothing leaks"


def settled(held: HostLedger, act: Callable[[], Grants]) -> None:
    """Answer every grant until none follows."""
    grants = act()
    while grants:
        grants = [more for lease, connections in grants for more in held.yielded(lease, connections) or []]


@given(wants=st.lists(st.integers(1, 6), min_size=1, max_size=6), limit=st.integers(6, 20))
def test_when_all_have_answered_all_have_their_fair_share(wants: list[int], limit: int) -> None:
    held = ledger(limit=limit)
    for number, want in enumerate(wants):
        held.add(str(number), f"w{number}", (HOST,), want)
        settled(held, lambda: held.balance({}))
        held.first_grant(str(number))
        settled(held, lambda number=number: held.started(str(number)))  # type: ignore[misc]
    for _ in range(3):
        settled(held, lambda: held.balance({}))
    assert held.used(HOST) == sum(fair_shares(limit, [Claim(want=want) for want in wants]))


TestAnyCourseOfThings = AnyCourseOfThings.TestCase
