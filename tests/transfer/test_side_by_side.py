"""Small files that are asked for side by side: as many as were granted, in order, none lost by what another does."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from behaviour import BIG, GOOD
from support.misbehaving_server import Case, MisbehavingServer
from support.waiting import wait_until
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.contract.worker_messages import (
    Assign,
    Failed,
    Finished,
    Grant,
    Halt,
    Halted,
    Recall,
    Retained,
    Retire,
    Returned,
    SetRate,
    Started,
    Yielded,
)

BODY = os.urandom(10_240)
LARGE = os.urandom(600_000)
HELD = Case(body=BODY, hold_after=5000)
WIDENS = {"autodl_lib.worker.flight:QUICK_S": 60.0}
NEVER_LATE = {**WIDENS, "autodl_lib.worker.small_file:GIVEN_S": 60.0}
STAYS = {**WIDENS, "autodl_lib.worker.backlog:RETURN_AFTER_S": 60.0}

Files = list[Assign]


@pytest.fixture
def files(server: MisbehavingServer, folder: Path) -> Callable[..., Files]:
    """Assign files that are there at once, so that four of those that follow are asked for together."""

    def give(worker: WorkerHarness, *cases: Case, connections: int = 4) -> Files:
        quick = [Case(body=BODY)] * 6
        urls = [server.serve(f"/{number}", case) for number, case in enumerate((*quick, *cases))]
        assigns = [worker.assignment(url, folder, connections=(connections,)) for url in urls]
        worker.order(*assigns[: len(quick)])
        for assign in assigns[: len(quick)]:
            worker.await_end(assign.lease)
        worker.order(*assigns[len(quick) :])
        return assigns[len(quick) :]

    return give


def whole(worker: WorkerHarness, assign: Assign, body: bytes = BODY) -> bool:
    """Tell whether a file has come as it is."""
    finished = worker.finish(assign)
    return isinstance(finished, Finished) and Path(finished.dest).read_bytes() == body


@pytest.mark.parametrize("connections", [1, 4])
def test_small_files_are_asked_for_over_as_many_connections_as_they_were_granted_and_no_more(
    server: MisbehavingServer,
    start_worker: Callable[..., WorkerHarness],
    files: Callable[..., Files],
    connections: int,
) -> None:
    worker = start_worker(constants=NEVER_LATE)
    held = files(worker, *[HELD] * 7, connections=connections)
    for _ in range(connections):
        server.held.acquire()
    assert server.most_answers == connections
    server.release()
    assert all(whole(worker, assign) for assign in held)
    assert server.most_connections == server.most_answers == connections
    assert len(server.requests) == 13
    wait_until(lambda: server.open_connections() <= 1, "one connection is left at most")


def test_those_of_a_server_that_is_far_away_are_asked_for_one_after_the_other(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files]
) -> None:
    """Of these, more workers have some; a connection more would be a slow answer each time."""
    worker = start_worker(constants={**NEVER_LATE, "autodl_lib.worker.flight:QUICK_S": 0.0})
    held = files(worker, HELD, HELD)
    server.held.acquire()
    server.release()
    assert all(whole(worker, assign) for assign in held)
    assert server.most_answers == 1


def test_files_of_two_servers_are_asked_for_one_server_after_the_other(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files], folder: Path
) -> None:
    """What was granted is for the host of each."""
    worker = start_worker(constants=NEVER_LATE)
    with MisbehavingServer() as other:
        elsewhere = worker.assignment(other.serve("/elsewhere", Case(body=BODY)), folder, connections=(4,))
        held = files(worker, HELD, HELD)
        worker.order(elsewhere)
        server.held.acquire()
        server.held.acquire()
        assert not other.requests
        server.release()
        assert all(whole(worker, assign) for assign in [*held, elsewhere])


def test_each_file_has_the_permissions_of_its_own_task(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], folder: Path
) -> None:
    worker = start_worker(constants={**NEVER_LATE, **STAYS})
    umasks = [0o022, 0o022, 0o022, 0o077, 0o077, 0o022] * 4
    assigns = [
        worker.assignment(
            server.serve(f"/{number}", Case(body=BODY)),
            folder,
            connections=(4,),
            options=TransferOptions(umask=umask),
        )
        for number, umask in enumerate(umasks)
    ]
    worker.order(*assigns)
    assert all(whole(worker, assign) for assign in assigns)
    assert [0o666 & ~((folder / f"{number}").stat().st_mode) & 0o777 for number in range(len(umasks))] == [
        0o666 & umask for umask in umasks
    ]


def test_of_several_that_take_long_the_first_goes_on_and_the_others_go_back_without_harm(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files]
) -> None:
    worker = start_worker(constants=WIDENS)
    first, *others = files(worker, HELD, HELD, HELD)
    worker.await_report(Started, first.lease)
    assert [type(worker.await_end(other.lease)) for other in others] == [Returned, Returned]
    server.release()
    assert whole(worker, first)
    assert all(whole(worker, other) for other in others)


def test_one_that_takes_long_does_not_hold_up_those_that_come_at_once(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files]
) -> None:
    worker = start_worker(constants=STAYS)
    slow, *quick = files(worker, HELD, Case(body=BODY), Case(body=BODY))
    assert all(whole(worker, assign) for assign in quick)
    server.release()
    assert whole(worker, slow)
    assert len(server.requests) == 9


@pytest.mark.parametrize("is_known", [True, False])
def test_a_large_file_behind_others_waits_for_them_and_goes_on_with_what_it_has(
    server: MisbehavingServer,
    start_worker: Callable[..., WorkerHarness],
    files: Callable[..., Files],
    is_known: bool,
) -> None:
    worker = start_worker(constants={**NEVER_LATE, **STAYS})
    first, large, small = files(worker, HELD, Case(body=LARGE, chunked=not is_known), HELD)
    server.held.acquire()
    server.held.acquire()
    server.release()
    assert whole(worker, first)
    assert whole(worker, large, LARGE)
    assert whole(worker, small)
    assert len(server.requests) == 9


def test_what_can_not_go_on_for_too_long_is_begun_anew_before_all_that_come_after_it(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files]
) -> None:
    worker = start_worker(constants=STAYS)
    first, large, last = files(worker, HELD, Case(body=LARGE, hold_after=300), Case(body=BODY), connections=2)
    server.held.acquire()
    server.held.acquire()
    wait_until(lambda: server.answers_under_way() == 1, "the large one is set back")
    server.release()
    assert whole(worker, first)
    assert whole(worker, large, LARGE)
    assert whole(worker, last)
    assert [seen.path for seen in server.requests[-2:]] == ["/7", "/8"]


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("body", [b"", b"not here"])
def test_what_fails_among_them_fails_alone_and_is_asked_for_once(
    server: MisbehavingServer,
    start_worker: Callable[..., WorkerHarness],
    files: Callable[..., Files],
    place: int,
    body: bytes,
) -> None:
    worker = start_worker(constants={**NEVER_LATE, **STAYS})
    missing = Case(status="404 Not Found", body=body)
    cases = [missing, missing, missing, Case(body=BODY)]
    cases.insert(place, HELD)
    assigns = files(worker, *cases)
    server.held.acquire()
    if place == 0:
        wait_until(lambda: len(server.requests) == 10 and server.answers_under_way() == 1, "three have failed")
    server.release()
    for assign, case in zip(assigns, cases, strict=True):
        if case is missing:
            end = worker.finish(assign)
            assert isinstance(end, Failed)
            assert end.http_status == 404
        else:
            assert whole(worker, assign)
    assert len(server.requests) == 11


@pytest.mark.parametrize("cut", [0, 5000])
def test_what_breaks_off_behind_others_says_so(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files], cut: int
) -> None:
    worker = start_worker(constants={**NEVER_LATE, **STAYS})
    first, broken, last = files(worker, HELD, Case(body=BODY, cut_after=cut), HELD)
    server.held.acquire()
    server.held.acquire()
    server.release()
    failed = worker.finish(broken)
    assert isinstance(failed, Failed)
    assert failed.code is FailureCode.TRUNCATED
    assert whole(worker, first)
    assert whole(worker, last)


def test_what_has_ended_behind_one_that_takes_long_is_not_asked_for_again(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files]
) -> None:
    worker = start_worker(constants={**STAYS, "autodl_lib.worker.small_file:KEPT_S": 60.0})
    first, missing = files(worker, HELD, Case(status="404 Not Found"))
    worker.await_report(Started, first.lease)
    server.release()
    assert whole(worker, first)
    assert isinstance(worker.finish(missing), Failed)
    assert len(server.requests) == 8


def test_a_file_behind_others_that_can_not_be_saved_fails_and_its_worker_goes_on(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files]
) -> None:
    worker = start_worker(constants={**NEVER_LATE, **STAYS})
    first, huge, last = files(worker, HELD, Case(body=LARGE, claim_size=10**16), Case(body=BODY), connections=2)
    server.held.acquire()
    wait_until(lambda: server.sent_bytes > len(BODY) * 7, "the huge one has begun")
    server.release()
    assert whole(worker, first)
    failed = worker.finish(huge)
    assert isinstance(failed, Failed)
    assert failed.code is FailureCode.DISK_FULL
    assert whole(worker, last)


def test_no_more_connections_are_made_while_the_body_of_one_waits(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files]
) -> None:
    worker = start_worker(constants={**NEVER_LATE, **STAYS})
    first, large, *others = files(worker, HELD, Case(body=LARGE, hold_after=300_000), *[Case(body=BODY)] * 20)
    server.held.acquire()
    server.held.acquire()
    server.release()
    assert all(whole(worker, assign) for assign in [first, *others])
    assert whole(worker, large, LARGE)
    assert server.most_connections == 4


def test_a_worker_that_retires_says_once_of_each_that_it_lets_go(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files]
) -> None:
    worker = start_worker(constants=NEVER_LATE)
    held = files(worker, HELD, HELD, HELD)
    for _ in range(3):
        server.held.acquire()
    worker.order(Grant(lease=held[2].lease, connections=(1,)), Retire())
    assert [type(worker.await_end(assign.lease)) for assign in held] == [Halted] * 3
    assert worker.wait_gone() == 0
    assert [len(worker.reports_of(assign.lease, Halted)) for assign in held] == [1, 1, 1]


def test_what_is_halted_among_them_leaves_nothing_and_the_others_go_on(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files], folder: Path
) -> None:
    worker = start_worker(constants=NEVER_LATE)
    first, halted, last = files(worker, HELD, HELD, HELD)
    for _ in range(3):
        server.held.acquire()
    worker.order(Halt(lease=halted.lease, discard=True))
    assert isinstance(worker.await_end(halted.lease), Halted)
    server.release()
    assert whole(worker, first)
    assert whole(worker, last)
    assert len(list(folder.iterdir())) == 8


def test_those_that_are_asked_for_are_retained_and_those_that_wait_go_back(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files]
) -> None:
    worker = start_worker(constants=NEVER_LATE)
    held = files(worker, *[HELD] * 6)
    for _ in range(4):
        server.held.acquire()
    worker.order(Recall(leases=tuple(assign.lease for assign in held)))
    for assign in held[:4]:
        worker.await_report(Retained, assign.lease)
    assert [type(worker.await_end(assign.lease)) for assign in held[4:]] == [Returned, Returned]
    server.release()
    assert all(whole(worker, assign) for assign in held)


def test_one_that_is_set_back_may_be_recalled(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files]
) -> None:
    """Some of them may use one connection only, from now on; the older ones are still under way."""
    worker = start_worker(constants=NEVER_LATE)
    first, other = files(worker, HELD, HELD)
    server.held.acquire()
    server.held.acquire()
    worker.order(Grant(lease=other.lease, connections=(1,)))
    worker.await_report(Yielded, other.lease)
    worker.order(Recall(leases=(first.lease, other.lease)))
    assert isinstance(worker.await_end(other.lease), Returned)
    worker.await_report(Retained, first.lease)
    server.release()
    assert whole(worker, first)


def test_whatever_takes_long_is_older_than_all_that_go_back_for_it(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files]
) -> None:
    worker = start_worker(constants=NEVER_LATE)
    first, large = files(worker, HELD, Case(body=LARGE, hold_after=300))
    server.held.acquire()
    server.held.acquire()
    worker.order(SetRate(lease=first.lease, limit_rate_bps=10_000_000))
    worker.await_report(Started, first.lease)
    worker.order(Grant(lease=first.lease, connections=(1,)))
    assert isinstance(worker.await_end(large.lease), Returned)
    server.release()
    assert isinstance(worker.await_end(first.lease), Finished)


def test_fewer_connections_are_used_as_soon_as_that_was_said(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files]
) -> None:
    worker = start_worker(constants=NEVER_LATE)
    held = files(worker, *[HELD] * 4)
    for _ in range(4):
        server.held.acquire()
    worker.order(*(Grant(lease=assign.lease, connections=(2,)) for assign in held))
    for assign in held:
        worker.await_report(Yielded, assign.lease)
    assert server.answers_under_way() == 2
    server.release()
    assert all(whole(worker, assign) for assign in held)
    assert [len([seen for seen in server.requests if seen.path == f"/{number}"]) for number in (6, 7)] == [1, 1]


def test_a_session_beside_small_files_has_what_they_leave_of_its_connections(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files]
) -> None:
    """And all of them as soon as those have come."""
    worker = start_worker(connections=4, constants={**NEVER_LATE, **STAYS})
    first, *small = files(worker, replace(GOOD, body=BIG * 4, rate_bps=512 * 1024), HELD, HELD)
    server.held.acquire()
    server.held.acquire()
    wait_until(lambda: server.answers_under_way() == 4, "the session has two connections")
    server.release()
    assert all(whole(worker, assign) for assign in small)
    wait_until(lambda: server.answers_under_way() == 4, "the session has four connections")
    assert whole(worker, first, BIG * 4)
    assert server.most_answers == 4


def test_a_session_is_done_beside_small_files_within_what_was_granted(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files]
) -> None:
    worker = start_worker(connections=4, constants={**NEVER_LATE, **STAYS})
    first, *small = files(worker, GOOD, HELD, HELD)
    server.held.acquire()
    server.held.acquire()
    assert whole(worker, first, BIG)
    assert server.most_answers == 4
    server.release()
    assert all(whole(worker, assign) for assign in small)


def test_a_grant_to_a_session_sets_back_the_small_files_beside_it(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files]
) -> None:
    worker = start_worker(constants={**NEVER_LATE, **STAYS})
    first, small = files(worker, Case(body=LARGE, hold_after=100_000), HELD, connections=2)
    server.held.acquire()
    server.held.acquire()
    worker.await_report(Started, first.lease)
    worker.order(Grant(lease=first.lease, connections=(1,)))
    worker.await_report(Yielded, first.lease)
    assert server.answers_under_way() == 1
    server.release()
    assert whole(worker, first, LARGE)
    assert whole(worker, small)


@pytest.mark.parametrize("place", [0, 1])
def test_a_rate_that_is_set_for_one_of_them_loses_no_byte_of_any(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], files: Callable[..., Files], place: int
) -> None:
    worker = start_worker(constants={**NEVER_LATE, **STAYS})
    held = files(worker, HELD, HELD)
    server.held.acquire()
    server.held.acquire()
    worker.order(SetRate(lease=held[place].lease, limit_rate_bps=10_000_000))
    server.release()
    assert all(whole(worker, assign) for assign in held)
