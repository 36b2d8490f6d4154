"""One file over several connections: as many as help, never more than were granted, and slow ones hold nothing up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from behaviour import BIG, BIG_BYTES, GOOD, SMALL, TINY
from support.misbehaving_cases import Page, Rule
from support.misbehaving_server import MisbehavingServer
from support.waiting import wait_until
from worker_harness import WorkerHarness

from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.contract.worker_messages import Assign, Finished, Grant, Halt, Progress, Ready, Started, Yielded
from autodl_lib.worker.files.control_file import decode_slots

Start = Callable[..., WorkerHarness]
KIB = 1024
MIB = 1024 * KIB
LONG = BIG * 2


@pytest.fixture
def worker(start_worker: Start) -> WorkerHarness:
    """A worker whose stall time-out is longer than any test waits."""
    return start_worker(connections=8, stall_timeout_s=300.0)


def fetch(worker: WorkerHarness, url: str, folder: Path, granted: int = 8, body: bytes = BIG) -> Assign:
    """Download a file, which must arrive as it is and alone."""
    assign = worker.assign(url, folder, connections=(granted,))
    assert isinstance(worker.await_end(assign.lease), Finished)
    name = url.rpartition("/")[2]
    assert (folder / name).read_bytes() == body
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    return assign


# --- how many ---


def test_where_the_server_limits_each_connection_several_are_used(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    fetch(worker, server.serve("/f", GOOD), folder)
    assert server.most_answers >= 3


def test_each_further_connection_is_tied_to_the_version_of_the_first(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    fetch(worker, server.serve("/f", GOOD), folder)
    ranged = [seen for seen in server.requests if seen.range not in (None, "bytes=0-")]
    assert ranged
    assert {seen.if_range or seen.headers.get("if-match") for seen in ranged} == {GOOD.etag}


@pytest.mark.parametrize("granted", [1, 2, 3, 5])
def test_there_are_never_more_connections_than_were_granted(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, granted: int
) -> None:
    fetch(worker, server.serve("/f", GOOD), folder, granted)
    assert 1 <= server.most_connections <= granted
    assert (server.most_answers > 1) == (granted > 1)


def test_a_connection_that_breaks_is_replaced_within_what_was_granted(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    long = replace(GOOD, body=LONG, rate_bps=MIB)
    page = Page(path="/f", cases=(long,), rules=(Rule(every_connection=2, case=replace(long, cut_after=50_000)),))
    fetch(worker, server.serve_page(page), folder, 2, body=LONG)
    assert server.most_connections == 2
    assert server.connections > 2


def test_the_tasks_own_limit_is_kept(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    options = TransferOptions(connections=2)
    assign = worker.assign(server.serve("/f", GOOD), folder, connections=(2,), options=options)
    assert isinstance(worker.await_end(assign.lease), Finished)
    assert server.most_connections <= 2


def test_a_fast_server_is_not_bothered_with_many(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    body = bytes(range(256)) * (32 * MIB // 256)
    for attempt in ("f", "g", "h"):  # a machine that is busy with other things may look like a slow server
        before = server.connections
        fetch(worker, server.serve(f"/{attempt}", replace(GOOD, body=body, rate_bps=None)), folder, body=body)
        if server.connections <= before + 2:
            return
    pytest.fail(f"{server.connections} connections")


def test_small_files_share_one_warm_connection(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    for number in range(50):
        fetch(worker, server.serve(f"/f{number}", TINY), folder, body=SMALL)
    assert server.connections == 1
    assert [seen.range for seen in server.requests if seen.range is not None] == []
    assert len(server.requests) == 50


def test_progress_says_how_many_there_are(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    case = replace(GOOD, body=LONG, rate_bps=512 * KIB)
    assign = fetch(worker, server.serve("/f", case), folder, 4, body=LONG)
    counts = [report.connections for report in worker.reports_of(assign.lease, Progress)]
    assert max(counts) > 1
    assert max(counts) <= 4


# --- grants ---


def begin_with_several(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> Assign:
    """Start a long download, and return when three of eight connections or more are at work."""
    url = server.serve("/f", replace(GOOD, body=LONG, rate_bps=256 * KIB))
    assign = worker.assign(url, folder, connections=(8,))
    worker.await_report(Started, assign.lease)
    wait_until(
        lambda: server.answers_under_way() >= 3, "three connections", seen=server.answers_under_way, timeout_s=10
    )
    return assign


def test_connections_that_are_taken_away_are_closed(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    assign = begin_with_several(server, worker, folder)
    worker.order(Grant(lease=assign.lease, connections=(1,)))
    yielded = worker.await_report(Yielded, assign.lease, such=lambda report: report.connections[0] <= 1)
    assert len(yielded.connections) == 1
    assert server.open_connections() <= 1
    worker.order(Halt(lease=assign.lease, discard=True))
    worker.await_end(assign.lease)


def test_connections_that_are_granted_again_are_used(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    assign = begin_with_several(server, worker, folder)
    worker.order(Grant(lease=assign.lease, connections=(1,)))
    worker.await_report(Yielded, assign.lease, such=lambda report: report.connections[0] <= 1)
    before = server.connections
    worker.order(Grant(lease=assign.lease, connections=(8,)))
    assert isinstance(worker.await_end(assign.lease), Finished)
    assert server.connections > before
    assert (folder / "f").read_bytes() == LONG


def test_a_grant_of_more_is_answered_too(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    assign = worker.assign(server.serve("/f", replace(GOOD, rate_bps=512 * KIB)), folder, connections=(1,))
    worker.await_report(Started, assign.lease)
    worker.order(Grant(lease=assign.lease, connections=(4,)))
    worker.await_report(Yielded, assign.lease)
    assert isinstance(worker.await_end(assign.lease), Finished)
    assert 1 < server.most_connections <= 4


# --- slow and dead connections ---


def every_second(path: str, **changes: object) -> Page:
    """Return a page of a good file, which every second connection gets like this."""
    return Page(path=path, cases=(GOOD,), rules=(Rule(every_connection=2, case=replace(GOOD, **changes)),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [{"rate_bps": 1000}, {"hang_after": 1000}, {"hang_after": 0}, {"raw": b"", "hang_after": 0}],
    ids=["crawl", "hang in the body", "hang before the body", "never answer"],
)
def test_what_a_slow_connection_had_to_fetch_is_fetched_by_others(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, changes: dict[str, object]
) -> None:
    fetch(worker, server.serve_page(every_second("/f", **changes)), folder)
    assert server.connections > 1


def test_a_first_connection_that_crawls_is_overtaken(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    page = Page(path="/f", cases=(replace(GOOD, rate_bps=50_000), GOOD))
    fetch(worker, server.serve_page(page), folder)
    assert server.most_answers > 1


def test_no_byte_is_fetched_twice_but_for_the_end(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    fetch(worker, server.serve("/f", GOOD), folder)
    assert server.most_answers > 1
    received = sum(report.bytes_received for report in worker.seen if isinstance(report, Ready))
    assert received <= BIG_BYTES * 5 // 4


# --- after a kill ---


def test_what_several_connections_had_brought_is_not_fetched_again_after_a_kill(
    server: MisbehavingServer, worker: WorkerHarness, start_worker: Start, folder: Path
) -> None:
    url = server.serve("/f", replace(GOOD, body=LONG, rate_bps=MIB))
    server.stop_after(6 * MIB)
    assign = worker.assign(url, folder, connections=(4,))
    started = worker.await_report(Started, assign.lease)
    assert server.stopped.wait(30)
    control = folder / ".f.autodl-ctl"

    def saved_bytes() -> int:
        found = decode_slots(control.read_bytes()) if control.exists() else None
        return found[0].bytes_done() if found is not None else 0

    wait_until(lambda: saved_bytes() > 5 * MIB, "a checkpoint of what came", seen=saved_bytes, timeout_s=20)
    worker.process.kill()
    worker.wait_gone()
    server.go_on()
    second = start_worker(connections=8)
    again = second.assign(url, folder, tag=assign.tag, name=started.name, part=started.part, connections=(4,))
    assert isinstance(second.await_end(again.lease), Finished)
    assert (folder / "f").read_bytes() == LONG
    assert server.sent_bytes <= len(LONG) + 2 * MIB


def test_a_pause_with_several_connections_keeps_what_they_brought(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    url = server.serve("/f", replace(GOOD, body=LONG, rate_bps=MIB))
    server.stop_after(6 * MIB)
    assign = worker.assign(url, folder, connections=(4,))
    started = worker.await_report(Started, assign.lease, such=lambda report: report.part is not None)
    assert server.stopped.wait(30)
    worker.await_report(Progress, assign.lease, such=lambda report: report.bytes_done > 5 * MIB)
    worker.order(Halt(lease=assign.lease, discard=False))
    halted = worker.await_end(assign.lease)
    assert halted.part == started.part  # type: ignore[attr-defined]
    assert halted.bytes_done > 5 * MIB  # type: ignore[attr-defined]
    server.go_on()
    again = worker.assign(url, folder, tag=assign.tag, name="f", part=started.part, connections=(4,))
    assert isinstance(worker.await_end(again.lease), Finished)
    assert (folder / "f").read_bytes() == LONG
    assert server.sent_bytes <= len(LONG) + 2 * MIB
