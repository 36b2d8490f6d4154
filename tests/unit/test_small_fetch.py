"""One small answer in memory: no more than was agreed, no longer than is patient, and who asked is told once."""

from __future__ import annotations

import errno
from typing import cast

import pycurl
import pytest

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.worker_messages import TransferSettings
from autodl_lib.worker.network import small_fetch
from autodl_lib.worker.network.connection import Answer, Connection, Connections, Listener
from autodl_lib.worker.network.request_options import Request
from autodl_lib.worker.network.response_head import ResponseHead
from autodl_lib.worker.network.small_fetch import Fetched, SmallFetch
from autodl_lib.worker.network.verdicts import CurlResult, TaskFailed, Verdict

MOST = 1000
CONNECT_S, STALL_S = 10.0, 20.0
REQUEST = Request(
    url=b"http://a.example/SHA256SUMS",
    headers=(),
    resume_from=0,
    limit_rate_bps=0,
    settings=TransferSettings(
        connect_timeout_s=CONNECT_S,
        stall_timeout_s=STALL_S,
        min_free_bytes=0,
        durable=True,
        max_redirects=5,
        user_agent="",
    ),
)
SUCCESS = CurlResult(code=0, message="", os_errno=0, status=200)


class Line:
    """What a connection is to its listener, without a network."""

    def __init__(self) -> None:
        self.listener: Listener | None = None
        self.seen = 0
        self.is_stopped = False
        self.refusal: Exception | None = None

    def start(self, _request: Request, listener: Listener) -> None:
        """Send nothing."""
        if self.refusal is not None:
            raise self.refusal
        self.listener = listener

    def stop(self) -> None:
        """Be stopped."""
        self.is_stopped = True

    def bytes_seen(self) -> int:
        """Return what has come, heads too."""
        return self.seen

    def head(self) -> ResponseHead:
        """Return some head."""
        return ResponseHead(status=200)


class Pool:
    """One connection, at rest or not."""

    def __init__(self) -> None:
        self.line = Line()
        self.at_rest = 1

    def take(self) -> Line:
        """Give it out."""
        self.at_rest -= 1
        return self.line

    def give_back(self, line: Line) -> None:
        """Take it back."""
        assert line is self.line
        self.at_rest += 1


class Asking:
    """A fetch, its clock, and what was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 500.0
        monkeypatch.setattr(small_fetch.time, "monotonic", lambda: self.now)
        self.told: list[Fetched | Verdict] = []
        self.pool = Pool()
        self.fetch = SmallFetch(REQUEST, MOST, self.told.append)

    def start(self) -> Asking:
        """Begin."""
        self.fetch.start(cast(Connections, self.pool))
        return self

    def body(self, data: bytes) -> Answer:
        """Have bytes of the body come."""
        answer = self.fetch.body_arrived(cast(Connection, self.pool.line), data)
        self.step(len(data))
        return answer

    def step(self, more_bytes: int) -> None:
        """Have something come, or nothing."""
        self.pool.line.seen += more_bytes
        self.fetch.connection_stepped(cast(Connection, self.pool.line))

    def end(self, result: CurlResult = SUCCESS) -> None:
        """Have the request end."""
        self.fetch.connection_ended(cast(Connection, self.pool.line), result)

    def verdict(self) -> Verdict:
        """Return what was told, once."""
        [told] = self.told
        assert isinstance(told, Verdict)
        return told


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Asking:
    return Asking(monkeypatch).start()


# --- what comes ---


def test_the_body_is_handed_over_in_one_piece(asking: Asking) -> None:
    for data in (b"one ", b"two ", b"", b"three"):
        assert asking.body(data) is Answer.TAKEN
    assert asking.told == []
    asking.end()
    [told] = asking.told
    assert isinstance(told, Fetched)
    assert told.body == b"one two three"
    assert told.head.status == 200
    assert asking.pool.at_rest == 1


@pytest.mark.parametrize("cuts", [[MOST], [MOST - 1, 1], [1] * MOST])
def test_as_much_as_was_agreed_is_taken(asking: Asking, cuts: list[int]) -> None:
    assert {asking.body(b"x" * size) for size in cuts} == {Answer.TAKEN}
    asking.end()
    assert isinstance(asking.told[0], Fetched)


@pytest.mark.parametrize("cuts", [[MOST + 1], [MOST, 1], [10**7], [1, MOST]])
def test_one_byte_more_ends_the_fetch_and_says_so(asking: Asking, cuts: list[int]) -> None:
    assert [asking.body(b"x" * size) for size in cuts][-1] is Answer.STOP
    asking.end(CurlResult(code=pycurl.E_WRITE_ERROR, message="", os_errno=0, status=200))
    assert asking.verdict().code is FailureCode.PROTOCOL
    assert str(MOST) in asking.verdict().message
    assert asking.pool.at_rest == 1


def test_what_is_too_much_is_not_kept(asking: Asking) -> None:
    asking.body(b"x" * MOST)
    for _ in range(100):
        assert asking.body(b"y" * 10**6) is Answer.STOP
    assert sum(map(len, asking.fetch._pieces)) <= MOST


def test_a_failure_of_the_network_is_told_as_such(asking: Asking) -> None:
    asking.body(b"half")
    asking.end(CurlResult(code=pycurl.E_PARTIAL_FILE, message="", os_errno=0, status=200))
    assert asking.verdict().code is FailureCode.TRUNCATED
    assert asking.pool.at_rest == 1


def test_a_connection_that_is_refused_names_the_host(asking: Asking) -> None:
    asking.end(CurlResult(code=pycurl.E_COULDNT_CONNECT, message="", os_errno=errno.ECONNREFUSED, status=None))
    assert asking.verdict().code is FailureCode.CONNECT
    assert "a.example" in asking.verdict().message


# --- how long ---


def test_before_the_first_byte_there_is_time_to_connect_too(asking: Asking) -> None:
    assert asking.fetch.wake_mono() == 500 + CONNECT_S + STALL_S
    asking.fetch.check(500 + CONNECT_S + STALL_S - 0.001)
    assert asking.told == []
    asking.fetch.check(500 + CONNECT_S + STALL_S)
    assert asking.verdict().code is FailureCode.STALLED
    assert asking.pool.line.is_stopped
    assert asking.pool.at_rest == 1


def test_each_byte_is_a_new_begin_of_patience(asking: Asking) -> None:
    for _ in range(3):
        asking.now += STALL_S - 1
        asking.step(1)
        assert asking.fetch.wake_mono() == asking.now + STALL_S
    asking.fetch.check(asking.now + STALL_S - 0.001)
    assert asking.told == []
    asking.fetch.check(asking.now + STALL_S)
    assert asking.verdict().code is FailureCode.STALLED


def test_an_answer_that_trickles_for_ever_is_given_up(asking: Asking) -> None:
    while asking.told == []:
        asking.now += STALL_S - 1
        asking.step(1)
        asking.fetch.check(asking.now)
        assert asking.now <= 500 + 300 + STALL_S
    assert asking.verdict().code is FailureCode.STALLED
    assert "short answer" in asking.verdict().message
    assert asking.pool.line.is_stopped


def test_a_step_that_brings_nothing_is_no_sign_of_life(asking: Asking) -> None:
    before = asking.fetch.wake_mono()
    asking.now += 5
    asking.step(0)
    assert asking.fetch.wake_mono() == before


# --- who is told ---


def test_who_stops_it_is_not_told(asking: Asking) -> None:
    asking.body(b"half")
    asking.fetch.stop()
    assert asking.pool.line.is_stopped
    assert asking.pool.at_rest == 1
    asking.fetch.stop()
    asking.fetch.check(10.0**9)
    assert asking.told == []
    assert asking.pool.at_rest == 1


def test_after_the_end_there_is_nothing_to_wait_for_and_nobody_is_told_again(asking: Asking) -> None:
    asking.body(b"all")
    asking.end()
    assert asking.fetch.wake_mono() == float("inf")
    asking.fetch.check(10.0**9)
    asking.fetch.stop()
    assert len(asking.told) == 1
    assert asking.pool.at_rest == 1


def test_after_a_stall_nobody_is_told_again(asking: Asking) -> None:
    asking.fetch.check(10.0**9)
    asking.fetch.check(10.0**9)
    asking.fetch.stop()
    assert len(asking.told) == 1
    assert asking.pool.at_rest == 1


@pytest.mark.parametrize(
    "refusal",
    [
        pycurl.error(pycurl.E_URL_MALFORMAT, "no"),
        ValueError("embedded null"),
        TaskFailed(FailureCode.TLS, "the CA file can't be read"),
    ],
)
def test_a_request_that_can_not_be_sent_is_a_failure_and_leaves_the_connection_at_rest(
    monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    asking = Asking(monkeypatch)
    asking.pool.line.refusal = refusal
    with pytest.raises(TaskFailed) as failed:
        asking.start()
    expected = refusal.verdict.code if isinstance(refusal, TaskFailed) else FailureCode.BAD_URL
    assert failed.value.verdict.code is expected
    assert asking.pool.at_rest == 1
    assert asking.told == []
