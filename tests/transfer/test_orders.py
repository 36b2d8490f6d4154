"""How a worker keeps its assignments in order: ahead, aside, back, and after a crash."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.misbehaving_server import Case, MisbehavingServer
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.worker_messages import (
    Assign,
    Discard,
    Discarded,
    Failed,
    FileIdentity,
    Finished,
    Halt,
    Halted,
    Progress,
    Publish,
    Ready,
    Recall,
    Retained,
    Retire,
    Returned,
    Started,
)

BODY = os.urandom(10_240)
LARGE_BODY = os.urandom(300_000)
"""Too large to come at once, so it has a part file."""
SMALL = Case(body=BODY)


def test_small_files_are_ready_without_having_been_started(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    assigns = [worker.assignment(server.serve(f"/f{number}", SMALL), folder) for number in range(30)]
    worker.order(*assigns)
    assert all(isinstance(worker.finish(assign), Finished) for assign in assigns)
    assert len(list(folder.iterdir())) == 30
    started = [report for report in worker.seen if isinstance(report, Started)]
    assert len(started) < 30


def test_small_files_wait_for_leave_to_publish_together(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    worker.auto_publish = False
    assigns = [worker.assignment(server.serve(f"/f{number}", SMALL), folder) for number in range(3)]
    for assign in assigns:
        worker.order(assign)
        worker.await_report(Ready, assign.lease)
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == []
    worker.order(Publish(leases=tuple(assign.lease for assign in reversed(assigns))))
    assert all(isinstance(worker.await_end(assign.lease), Finished) for assign in assigns)


def test_assignments_behind_a_long_one_go_back(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    long = worker.assignment(server.serve("/long", Case(body=BODY, hold_after=100)), folder)
    others = [worker.assignment(server.serve(f"/f{number}", SMALL), folder) for number in range(3)]
    worker.order(long, *others)
    for other in others:
        assert isinstance(worker.await_end(other.lease), Returned)
    late = worker.assign(server.serve("/late", SMALL), folder)
    assert isinstance(worker.await_end(late.lease), Returned)
    server.release()
    assert isinstance(worker.await_end(long.lease), Finished)
    assert {request.line.split()[1] for request in server.requests} == {"/long"}


def test_a_visible_transfer_is_finished_before_the_next_begins(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    worker.auto_publish = False
    long = worker.assign(server.serve("/long", Case(body=BODY, hold_after=100)), folder)
    worker.await_report(Started, long.lease)
    server.release()
    worker.await_report(Ready, long.lease)
    nexts = worker.assign(server.serve("/next", SMALL), folder)
    assert isinstance(worker.await_end(nexts.lease), Returned)
    worker.order(Publish(leases=(long.lease,)))
    assert isinstance(worker.await_end(long.lease), Finished)


def test_progress_tells_how_far_it_is(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    body = os.urandom(2_000_000)
    assign = worker.assign(server.serve("/f", Case(body=body)), folder, limit_rate_bps=1_000_000)
    started = worker.await_report(Started, assign.lease)
    assert (started.name, started.part, started.bytes_total) == ("f", ".f.autodl-part", len(body))
    progress = worker.await_report(Progress, assign.lease, such=lambda report: report.speed_bps > 0)
    assert 0 < progress.bytes_done <= len(body)
    assert progress.connections == 1
    assert isinstance(worker.await_end(assign.lease), Finished)


def test_an_assignment_that_waits_can_be_halted(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    waiting = worker.assignment(server.serve("/w", SMALL), folder, part=".w.autodl-part", name="w")
    first = worker.assignment(server.serve("/f", SMALL), folder)
    worker.order(first, waiting, Halt(lease=waiting.lease, discard=False))
    halted = worker.await_end(waiting.lease)
    assert isinstance(halted, Halted)
    assert (halted.part, halted.bytes_done) == (".w.autodl-part", 0)
    assert isinstance(worker.await_end(first.lease), Finished)
    assert {request.line.split()[1] for request in server.requests} == {"/f"}


def test_a_halt_for_a_lease_that_is_over_is_ignored(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    first = worker.assign(server.serve("/f", SMALL), folder)
    worker.await_end(first.lease)
    worker.order(Halt(lease=first.lease, discard=True), Publish(leases=(first.lease,)))
    second = worker.assign(server.serve("/g", SMALL), folder)
    assert isinstance(worker.await_end(second.lease), Finished)
    assert (folder / "f").exists()


def ready_then_killed(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> tuple[Assign, Ready]:
    """A download that was reported ready by a worker that is no more."""
    worker.auto_publish = False
    assign = worker.assign(server.serve("/f", Case(body=LARGE_BODY)), folder)
    ready = worker.await_report(Ready, assign.lease)
    worker.process.kill()
    worker.wait_gone()
    return assign, ready


def test_a_ready_file_is_published_by_the_next_worker(
    server: MisbehavingServer, start_worker: Callable[[], WorkerHarness], folder: Path
) -> None:
    first, ready = ready_then_killed(server, start_worker(), folder)
    worker = start_worker()
    again = worker.assign(first.url, folder, tag=first.tag, name=ready.name, part=ready.part, identity=ready.identity)
    assert isinstance(worker.await_end(again.lease), Finished)
    assert len(server.requests) == 1
    assert [path.name for path in folder.iterdir()] == ["f"]


@pytest.mark.parametrize("crashed_after", ["link", "unlink"])
def test_a_published_file_is_recognised_by_the_next_worker(
    server: MisbehavingServer, start_worker: Callable[[], WorkerHarness], folder: Path, crashed_after: str
) -> None:
    first, ready = ready_then_killed(server, start_worker(), folder)
    os.link(folder / ready.part, folder / "f")
    if crashed_after == "unlink":
        (folder / ready.part).unlink()
    worker = start_worker()
    again = worker.assign(first.url, folder, tag=first.tag, name=ready.name, part=ready.part, identity=ready.identity)
    finished = worker.await_end(again.lease)
    assert finished == Finished(lease=again.lease, dest=str(folder / "f"), size_bytes=len(LARGE_BODY))
    assert len(server.requests) == 1
    assert [path.name for path in folder.iterdir()] == ["f"]
    assert worker.reports_of(again.lease, Ready) == []


def test_a_ready_file_that_is_gone_is_fetched_again(
    server: MisbehavingServer, start_worker: Callable[[], WorkerHarness], folder: Path
) -> None:
    first, ready = ready_then_killed(server, start_worker(), folder)
    (folder / ready.part).unlink()
    (folder / "f").write_bytes(b"another file of this name")
    worker = start_worker()
    again = worker.assign(first.url, folder, tag=first.tag, name=ready.name, part=ready.part, identity=ready.identity)
    finished = worker.await_end(again.lease)
    assert isinstance(finished, Finished)
    assert finished.dest == str(folder / "f.1")
    assert (folder / "f").read_bytes() == b"another file of this name"


def test_a_ready_file_that_changed_is_not_published(
    server: MisbehavingServer, start_worker: Callable[[], WorkerHarness], folder: Path
) -> None:
    first, ready = ready_then_killed(server, start_worker(), folder)
    (folder / ready.part).write_bytes(b"tampered")
    worker = start_worker()
    again = worker.assign(first.url, folder, tag=first.tag, name=ready.name, part=ready.part, identity=ready.identity)
    finished = worker.await_end(again.lease)
    assert isinstance(finished, Finished)
    assert Path(finished.dest).read_bytes() == LARGE_BODY


def test_a_part_is_discarded_when_it_is_the_tasks_own(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    part = paused_part(server, worker, folder, "mine")
    worker.order(Discard(lease="d", dir=str(folder), part=part, tag="mine"))
    assert isinstance(worker.await_end("d"), Discarded)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("part", ["../precious", "precious", ".precious.autodl-part", "/etc/passwd", "a\0b"])
def test_nothing_else_is_discarded(worker: WorkerHarness, folder: Path, tmp_path: Path, part: str) -> None:
    (tmp_path / "precious").write_bytes(b"")
    (folder / "precious").write_bytes(b"")
    (folder / ".precious.autodl-part").symlink_to(folder / "precious")
    worker.order(Discard(lease="d", dir=str(folder), part=part, tag="mine"))
    assert isinstance(worker.await_end("d"), Discarded)
    assert (tmp_path / "precious").exists()
    assert len(list(folder.iterdir())) == 2


def test_another_tasks_part_is_not_discarded(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    part = paused_part(server, worker, folder, "theirs")
    worker.order(Discard(lease="d", dir=str(folder), part=part, tag="mine"))
    assert isinstance(worker.await_end("d"), Discarded)
    assert (folder / part).exists()


def test_a_part_in_a_folder_that_is_gone_is_discarded(worker: WorkerHarness, folder: Path) -> None:
    worker.order(Discard(lease="d", dir=str(folder / "gone"), part=".f.autodl-part", tag="mine"))
    assert isinstance(worker.await_end("d"), Discarded)
    assert not (folder / "gone").exists()


def paused_part(server: MisbehavingServer, worker: WorkerHarness, folder: Path, tag: str) -> str:
    """Leave a paused task's part file; returns its name."""
    held = Case(body=os.urandom(100_000), etag='"v"', hold_after=50_000)
    assign = worker.assign(server.serve("/f", held), folder, tag=tag)
    worker.await_report(Started, assign.lease, such=lambda report: report.part is not None)
    worker.order(Halt(lease=assign.lease, discard=False))
    halted = worker.await_end(assign.lease)
    assert isinstance(halted, Halted)
    assert halted.part is not None
    return halted.part


def test_retiring_lets_go_of_everything(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    worker.auto_publish = False
    ready = worker.assign(server.serve("/r", SMALL), folder)
    worker.await_report(Ready, ready.lease)
    long = worker.assignment(server.serve("/long", Case(body=BODY, hold_after=100)), folder)
    waiting = worker.assignment(server.serve("/w", SMALL), folder)
    worker.order(long, waiting, Retire())
    for assign in (ready, long, waiting):
        assert isinstance(worker.await_end(assign.lease), Halted)
    assert worker.wait_gone() == 0


def test_a_defect_in_one_task_is_only_its_own(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    identity = FileIdentity(inode=1, size_bytes=1, mtime_ns=1)
    url = server.serve("/f", SMALL)
    odd = worker.assign(url, folder, name="../x", part=".f.autodl-part", identity=identity)
    assert isinstance(worker.await_end(odd.lease), Failed)
    assert isinstance(worker.await_end(worker.assign(url, folder).lease), Finished)


def test_an_assignment_that_cannot_be_read_fails_alone(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    broken = replace(worker.assignment(server.serve("/f", SMALL), folder), headers=7)  # type: ignore[arg-type]
    worker.order(broken)
    failed = worker.await_end(broken.lease)
    assert isinstance(failed, Failed)
    assert failed.code is FailureCode.INTERNAL
    good = worker.assign(server.serve("/g", SMALL), folder)
    assert isinstance(worker.await_end(good.lease), Finished)


def test_settings_count_from_the_next_assignment_on(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], folder: Path
) -> None:
    worker = start_worker(durable=False, max_redirects=0)
    url = server.serve("/f", Case(status="302 Found", headers=("Location: /g",)))
    failed = worker.await_end(worker.assign(url, folder).lease)
    assert isinstance(failed, Failed)
    assert failed.code is FailureCode.REDIRECT


def test_of_what_is_recalled_that_which_has_not_begun_goes_back(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    long = worker.assign(server.serve("/long", Case(body=BODY, hold_after=100)), folder)
    assert server.held.acquire(timeout=45)
    first, kept, last = (worker.assignment(server.serve(f"/f{number}", SMALL), folder) for number in range(3))
    worker.order(first, kept, last, Recall(leases=(last.lease, long.lease, first.lease, "nobody's")))
    for assign in (first, last):
        assert isinstance(worker.await_end(assign.lease), Returned)
    worker.await_report(Retained, long.lease)
    server.release()
    assert isinstance(worker.await_end(long.lease), Finished)
    assert isinstance(worker.finish(kept), Finished)
    assert {request.line.split()[1] for request in server.requests} == {"/long", "/f1"}


def test_a_small_file_that_waits_for_leave_to_publish_is_retained(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    worker.auto_publish = False
    assign = worker.assign(server.serve("/f", SMALL), folder)
    worker.await_report(Ready, assign.lease)
    worker.order(Recall(leases=(assign.lease,)))
    worker.await_report(Retained, assign.lease)
    worker.order(Publish(leases=(assign.lease,)))
    assert isinstance(worker.await_end(assign.lease), Finished)
