"""How many connections a file gets, against simulated servers: more where they help, few where they don't."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodl_lib.worker.transfer.ramp import WORTH_S, Ramp, Reading

MB = 1_000_000
TICK_S = 0.05
"""How often connections are steered."""
A_WHILE_S = 5.0
"""So long at least, what didn't help is not tried again."""
SOON_S = 3.0
LATER_S = 60.0
"""Within so long, it is tried again."""


@dataclass(kw_only=True)
class Server:
    """A server and the way to it, in exact time.

    `head_start_bytes` come at once on each connection (what waits in buffers); beyond `accepts` connections it
    refuses.
    """

    each_bps: float = 1000 * MB
    link_bps: float = 1000 * MB
    delay_s: float = 0.02
    head_start_bytes: float = 0
    accepts: int = 1000
    cpu_bps: float = 1e12
    """How much a processor can take in."""


@dataclass(kw_only=True)
class Download:
    """A transfer from a server, steered by a ramp."""

    server: Server
    size_bytes: int | None
    most: int = 16
    limit_bps: int = 0
    now: float = 1000.0
    received: float = 0.0
    busy_s: float = 0.0
    ages_s: list[float] = field(default_factory=lambda: [1.0])
    brought: list[float] = field(default_factory=lambda: [0.0])
    history: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the begin, and how many connections there should be then."""
    refused: int = 0

    def __post_init__(self) -> None:
        self.begun = self.now
        self.ramp = Ramp(self.reading())

    def reading(self) -> Reading:
        """Return what a transfer would tell."""
        return Reading(
            now=self.now,
            received_bytes=int(self.received),
            remaining_bytes=None if self.size_bytes is None else max(0, self.size_bytes - int(self.received)),
            connections=len(self.ages_s),
            delivering=sum(1 for brought in self.brought if brought > 0),
            busy_s=self.busy_s,
            limit_bps=self.limit_bps,
            most=self.most,
        )

    def is_over(self) -> bool:
        """Tell whether all has come."""
        return self.size_bytes is not None and self.received >= self.size_bytes

    def run(self, seconds: float) -> Download:
        """Let time go by, until the file is complete."""
        until = self.now + seconds
        while self.now < until - 1e-9 and not self.is_over():
            self._tick()
        return self

    def numbers(self, since_s: float = 0.0) -> list[int]:
        """Return how many connections there were to be, from some second on."""
        return [number for moment, number in self.history if moment >= since_s]

    def _tick(self) -> None:
        self.now += TICK_S
        self._receive()
        self._refuse()
        target = self.ramp.decide(self.reading())
        assert 1 <= target <= max(1, self.most)
        del self.ages_s[target:], self.brought[target:]
        while len(self.ages_s) < target:
            self.ages_s.append(0.0)
            self.brought.append(0.0)
        self.history.append((self.now - self.begun, target))

    def _receive(self) -> None:
        server = self.server
        self.ages_s = [age_s + TICK_S for age_s in self.ages_s]
        offers = [
            0.0 if age_s < server.delay_s else TICK_S * server.each_bps + max(0.0, server.head_start_bytes - brought)
            for age_s, brought in zip(self.ages_s, self.brought, strict=True)
        ]
        offers = [0.0 if index >= server.accepts else offer for index, offer in enumerate(offers)]
        ways = [server.link_bps, server.cpu_bps, *([self.limit_bps] if self.limit_bps else [])]
        scale = min(1.0, TICK_S * min(ways) / max(1.0, sum(offers)))
        self.brought = [brought + offer * scale for brought, offer in zip(self.brought, offers, strict=True)]
        self.received += sum(offers) * scale
        self.busy_s += sum(offers) * scale / server.cpu_bps

    def _refuse(self) -> None:
        """Lose the connections that the server does not accept, as they hear of it."""
        while len(self.ages_s) > self.server.accepts and self.ages_s[-1] >= self.server.delay_s:
            self.ages_s.pop()
            self.brought.pop()
            self.refused += 1
            self.ramp.cap(len(self.ages_s), self.now)


# --- where more help ---


@pytest.mark.parametrize("delay_s", [0.0, 0.04, 0.3, 1.0])
@pytest.mark.parametrize("each_bps", [0.2 * MB, 2 * MB, 20 * MB])
@pytest.mark.parametrize("most", [2, 3, 4, 16])
def test_a_server_that_limits_each_connection_is_soon_used_in_full(delay_s: float, each_bps: float, most: int) -> None:
    server = Server(each_bps=each_bps, delay_s=delay_s)
    download = Download(server=server, size_bytes=10**12, most=most).run(60)
    assert set(download.numbers(SOON_S + 3 * delay_s)) == {most}


def test_a_file_of_some_seconds_gets_nearly_all_of_a_limited_server() -> None:
    server = Server(each_bps=2 * MB, delay_s=0.001)
    download = Download(server=server, size_bytes=16 * MB * 10, most=8).run(60)
    assert download.now - download.begun < 1.1 * 10


@pytest.mark.parametrize("head_start", [64 * 1024, 512 * 1024, 4 * MB])
def test_what_waits_in_buffers_does_not_mislead_for_long(head_start: int) -> None:
    server = Server(each_bps=2 * MB, head_start_bytes=head_start)
    download = Download(server=server, size_bytes=10**12, most=8).run(LATER_S)
    assert download.ramp.target == 8


def test_where_several_fill_the_link_there_are_about_as_many() -> None:
    for several in (2, 3, 5, 8):
        server = Server(each_bps=MB, link_bps=several * MB)
        download = Download(server=server, size_bytes=10**12, most=64).run(14)
        assert several <= download.ramp.target + 1
        assert download.ramp.target <= 4 * several, "a connection must bring a quarter of the first one's speed"


# --- where they don't ---


@pytest.mark.parametrize("delay_s", [0.0, 0.04, 0.3])
def test_on_a_link_that_one_connection_fills_there_is_one_but_for_short_trials(delay_s: float) -> None:
    server = Server(link_bps=10 * MB, delay_s=delay_s)
    download = Download(server=server, size_bytes=10**12).run(300)
    numbers = download.numbers()
    assert download.numbers(SOON_S)[0] == 1, "what does not help is taken back"
    assert numbers.count(1) > 0.8 * len(numbers)


def test_what_did_not_help_is_tried_again_later_and_not_at_once() -> None:
    download = Download(server=Server(link_bps=10 * MB), size_bytes=10**12).run(SOON_S)
    assert max(download.numbers()) > 1
    download.run(A_WHILE_S)
    assert set(download.numbers(SOON_S)) == {1}
    download.server = Server(each_bps=10 * MB)  # the others on the link are gone
    download.run(LATER_S)
    assert download.ramp.target == download.most


def test_a_busy_processor_gets_no_more_connections() -> None:
    download = Download(server=Server(cpu_bps=800 * MB), size_bytes=10**12).run(30)
    assert set(download.numbers()) == {1}


def test_a_processor_that_becomes_free_does() -> None:
    download = Download(server=Server(cpu_bps=800 * MB), size_bytes=10**12).run(5)
    download.server = Server(each_bps=100 * MB)
    download.run(LATER_S)
    assert download.ramp.target > 1


@pytest.mark.parametrize("each_bps", [0.1 * MB, 10 * MB, 900 * MB])
def test_a_file_that_will_be_there_in_a_moment_gets_one(each_bps: float) -> None:
    download = Download(server=Server(each_bps=each_bps), size_bytes=int(0.95 * WORTH_S * each_bps)).run(10)
    assert download.is_over()
    assert set(download.numbers()) <= {1}


def test_the_end_of_a_file_gets_no_more_than_it_has() -> None:
    server = Server(each_bps=10 * MB)
    download = Download(server=server, size_bytes=25 * MB, most=1).run(2.2)
    download.most = 16
    download.run(10)
    assert download.is_over()
    assert set(download.numbers()) == {1}


def test_a_file_of_unknown_size_gets_one() -> None:
    download = Download(server=Server(each_bps=MB), size_bytes=None).run(30)
    assert set(download.numbers()) == {1}


def test_a_rate_limit_that_one_connection_fills_gets_one() -> None:
    download = Download(server=Server(each_bps=10 * MB), size_bytes=10**12, limit_bps=MB).run(60)
    assert set(download.numbers()) == {1}


def test_a_rate_limit_that_takes_several_connections_to_fill_gets_several() -> None:
    download = Download(server=Server(each_bps=MB), size_bytes=10**12, limit_bps=4 * MB).run(14)
    assert 4 <= download.ramp.target <= 8


def test_a_connection_that_brings_nothing_gets_no_company_by_this() -> None:
    download = Download(server=Server(delay_s=100), size_bytes=10**12).run(30)
    assert set(download.numbers()) == {1}


# --- what is allowed ---


def test_a_grant_of_fewer_counts_at_once_and_one_of_more_later() -> None:
    download = Download(server=Server(each_bps=MB), size_bytes=10**12, most=16).run(10)
    assert download.ramp.target == 16
    download.most = 3
    download.run(TICK_S)
    assert download.ramp.target == 3
    download.most = 16
    download.run(LATER_S)
    assert download.ramp.target == 16


def test_no_grant_at_all_is_one_connection() -> None:
    download = Download(server=Server(each_bps=MB), size_bytes=10**12, most=0).run(5)
    assert set(download.numbers()) == {1}


# --- refusals ---


def test_a_server_that_refuses_more_is_left_at_what_it_accepts_for_a_while() -> None:
    download = Download(server=Server(each_bps=MB, accepts=3), size_bytes=10**12).run(SOON_S)
    assert download.refused > 0
    refused = download.refused
    download.run(A_WHILE_S)
    assert set(download.numbers(SOON_S)) == {3}
    assert download.refused == refused


def test_a_server_that_refuses_is_not_pestered() -> None:
    download = Download(server=Server(each_bps=MB, accepts=3), size_bytes=10**12, most=8).run(300)
    assert download.refused <= 300 / A_WHILE_S * 5
    numbers = download.numbers(SOON_S)
    assert numbers.count(3) > 0.9 * len(numbers)
    assert min(numbers) == 3, "those that it does accept are kept"


def test_a_server_that_accepts_more_later_gets_more() -> None:
    download = Download(server=Server(each_bps=MB, accepts=1), size_bytes=10**12, most=8).run(SOON_S)
    assert download.ramp.target == 1
    download.server.accepts = 8
    download.run(LATER_S)
    assert download.ramp.target == 8


@pytest.mark.parametrize("left", [-1, 0, 1, 2])
def test_a_refusal_never_raises_the_number_nor_takes_the_last_connection(left: int) -> None:
    download = Download(server=Server(each_bps=MB), size_bytes=10**12)
    download.ramp.cap(left, download.now)
    assert download.ramp.target == 1


# --- whatever is read ---

readings = st.builds(
    dict,
    step_s=st.sampled_from([0.0, 1e-6, 0.01, 0.05, 0.3, 3.0, 20.0]),
    more_bytes=st.one_of(st.just(0), st.integers(0, 10**12)),
    remaining_bytes=st.none() | st.integers(0, 10**15),
    connections=st.integers(0, 300),
    delivering=st.integers(0, 300),
    more_busy_s=st.floats(0, 5),
    limit_bps=st.one_of(st.just(0), st.integers(1, 10**10)),
    most=st.integers(0, 256),
    refused=st.none() | st.integers(0, 300),
)


@settings(max_examples=300)
@given(steps=st.lists(readings, min_size=1, max_size=40))
def test_whatever_is_read_the_number_is_at_least_one_and_never_above_what_is_allowed(steps: list[dict]) -> None:
    now, received, busy_s = 50.0, 0, 0.0
    ramp: Ramp | None = None
    for step in steps:
        now += step["step_s"]
        received += step["more_bytes"]
        busy_s += step["more_busy_s"]
        reading = Reading(
            now=now,
            received_bytes=received,
            remaining_bytes=step["remaining_bytes"],
            connections=step["connections"],
            delivering=min(step["delivering"], step["connections"]),
            busy_s=busy_s,
            limit_bps=step["limit_bps"],
            most=step["most"],
        )
        if ramp is None:
            ramp = Ramp(reading)
        before = ramp.target
        if step["refused"] is not None:
            ramp.cap(step["refused"], now)
            assert ramp.target <= max(1, min(before, step["refused"]))
        assert 1 <= ramp.decide(reading) <= max(1, step["most"])
        assert ramp.target == int(ramp.target)
