"""A small file has no name before it is complete: what is seen of it, and what happens when it does not come so far."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from support.misbehaving_server import Case, MisbehavingServer
from support.strace import Strace, fail_at
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.task import OnConflict
from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.contract.worker_messages import Assign, Failed, Finished, Halt, Halted, Publish, Ready, Started
from autodl_lib.worker.files.folder import Folder
from autodl_lib.worker.files.unnamed_file import open_unnamed

BODY = os.urandom(10_240)
SMALL = Case(body=BODY, etag='"v1"')
Start = Callable[[], WorkerHarness]


@pytest.fixture
def start_patient(start_worker: Callable[..., WorkerHarness]) -> Start:
    """Start workers that wait for any time for what may come at once, however busy the machine is."""
    return lambda: start_worker(constants={"autodl_lib.worker.small_file:GIVEN_S": 3600})


@pytest.fixture
def worker(start_patient: Start) -> WorkerHarness:
    """One of them."""
    return start_patient()


def ready(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> tuple[Assign, Ready]:
    """A small file that waits for leave to be published."""
    worker.auto_publish = False
    assign = worker.assign(server.serve("/f", SMALL), folder)
    return assign, worker.await_report(Ready, assign.lease)


def test_nothing_is_in_the_folder_before_it_is_published(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    assign, report = ready(server, worker, folder)
    assert (report.name, report.part, report.identity.size_bytes) == ("f", None, len(BODY))
    assert list(folder.iterdir()) == []
    worker.order(Publish(leases=(assign.lease,)))
    assert worker.await_end(assign.lease) == Finished(lease=assign.lease, dest=str(folder / "f"), size_bytes=len(BODY))
    assert (folder / "f").read_bytes() == BODY
    status = (folder / "f").stat()
    assert (status.st_ino, status.st_mtime_ns) == (report.identity.inode, report.identity.mtime_ns)
    assert (stat.S_IMODE(status.st_mode), status.st_nlink) == (0o644, 1)


def test_its_owner_s_umask_counts(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    assign = worker.assign(server.serve("/f", SMALL), folder, options=TransferOptions(umask=0o077))
    assert isinstance(worker.finish(assign), Finished)
    assert stat.S_IMODE((folder / "f").stat().st_mode) == 0o600


def test_of_one_whose_worker_is_killed_nothing_is_left_and_it_is_fetched_again(
    server: MisbehavingServer, start_patient: Start, folder: Path
) -> None:
    first = start_patient()
    assign, report = ready(server, first, folder)
    first.process.kill()
    first.wait_gone()
    assert list(folder.iterdir()) == []
    worker = start_patient()
    again = worker.assign(assign.url, folder, tag=assign.tag, name=report.name, identity=report.identity)
    assert isinstance(worker.await_end(again.lease), Finished)
    assert [path.name for path in folder.iterdir()] == ["f"]
    assert (folder / "f").read_bytes() == BODY


def test_one_that_had_its_name_when_its_worker_was_killed_is_not_fetched_again(
    server: MisbehavingServer, start_patient: Start, folder: Path
) -> None:
    first = start_patient()
    assign, report = ready(server, first, folder)
    first.order(Publish(leases=(assign.lease,)))
    first.await_end(assign.lease)
    worker = start_patient()
    again = worker.assign(assign.url, folder, tag=assign.tag, name=report.name, identity=report.identity)
    assert worker.await_end(again.lease) == Finished(lease=again.lease, dest=str(folder / "f"), size_bytes=len(BODY))
    assert len(server.requests) == 1
    assert [path.name for path in folder.iterdir()] == ["f"]


def test_a_part_that_an_earlier_attempt_left_unheard_of_goes_with_the_next_one(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    """Its worker was killed before anybody heard of it: it had been slow, and this time the file comes at once."""
    (folder / ".f.autodl-part").write_bytes(b"of nobody")
    assert isinstance(worker.finish(worker.assign(server.serve("/f", SMALL), folder, is_again=True)), Finished)
    assert [path.name for path in folder.iterdir()] == ["f"]


def test_what_an_earlier_attempt_kept_unheard_of_goes_with_the_next_one(
    server: MisbehavingServer, worker: WorkerHarness, start_worker: Start, folder: Path
) -> None:
    """Part file and control file: the news of them was lost, and this time the file comes at once."""
    url = server.serve("/f", Case(body=BODY, etag='"v1"', hold_after=5000), SMALL)
    hasty = start_worker()
    first = hasty.assign(url, folder)
    hasty.await_report(Started, first.lease, such=lambda report: report.part is not None)
    hasty.order(Halt(lease=first.lease, discard=False))
    assert isinstance(hasty.await_end(first.lease), Halted)
    assert sorted(path.name for path in folder.iterdir()) == [".f.autodl-ctl", ".f.autodl-part"]
    assert isinstance(worker.finish(worker.assign(url, folder, tag=first.tag, is_again=True)), Finished)
    assert [path.name for path in folder.iterdir()] == ["f"]


@pytest.mark.parametrize("discard", [True, False])
def test_of_one_that_is_halted_nothing_is_kept(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, discard: bool
) -> None:
    assign, _ = ready(server, worker, folder)
    worker.order(Halt(lease=assign.lease, discard=discard))
    halted = worker.await_end(assign.lease)
    assert halted == Halted(lease=assign.lease, bytes_done=0, bytes_received=len(BODY), part=None)
    assert list(folder.iterdir()) == []


def test_files_of_one_name_that_come_together_all_get_names(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    assigns = [worker.assignment(server.serve(f"/{n}/f", Case(body=b"%d" % n)), folder) for n in range(30)]
    worker.order(*assigns)
    for assign in assigns:
        assert isinstance(worker.finish(assign), Finished)
    names = ["f", *(f"f.{number}" for number in range(1, 30))]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert {(folder / name).read_bytes() for name in names} == {b"%d" % n for n in range(30)}


def test_files_that_are_to_have_one_name_do_not_aim_at_the_same(folder: Path) -> None:
    there = Folder(str(folder), os.open(folder, os.O_RDONLY), readable=True)
    files = [open_unnamed(there, "f") for _ in range(3)]
    assert [file.name for file in files if file is not None] == ["f", "f.1", "f.2"]
    for file in files:
        assert file is not None
        assert file.give_name()
        file.close()
    assert there.aimed_at == set()
    assert sorted(path.name for path in folder.iterdir()) == ["f", "f.1", "f.2"]


def test_a_name_that_is_taken_meanwhile_is_not_replaced_whoever_has_it(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    assign, first = ready(server, worker, folder)
    (folder / "f").symlink_to(folder / "nowhere")
    worker.order(Publish(leases=(assign.lease,)))
    second = worker.await_report(Ready, assign.lease, such=lambda report: report.name != first.name)
    assert (second.name, second.identity) == ("f.1", first.identity)
    worker.auto_publish = True
    other = worker.assign(server.serve("/f", SMALL), folder)
    # Now that one was taken, names are looked at before, and this one is aimed at by another.
    assert worker.await_report(Ready, other.lease).name == "f.2"
    worker.order(Publish(leases=(assign.lease,)))
    for lease, name in ((assign.lease, "f.1"), (other.lease, "f.2")):
        finished = worker.await_end(lease)
        assert isinstance(finished, Finished)
        assert finished.dest == str(folder / name)
    assert (folder / "f").is_symlink()
    assert not (folder / "nowhere").exists()


@pytest.mark.parametrize("fields", [{}, {"limit_rate_bps": 10_000_000}], ids=["unnamed", "a part file"])
def test_a_name_that_is_taken_again_and_again_keeps_one_number(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, fields: dict[str, object]
) -> None:
    worker.auto_publish = False
    assign = worker.assign(server.serve("/f.tar.gz", SMALL), folder, **fields)
    names = ["f.tar.gz", "f.1.tar.gz", "f.2.tar.gz", "f.3.tar.gz"]
    for name in names[:-1]:
        worker.await_report(Ready, assign.lease, such=lambda report, name=name: report.name == name)
        (folder / name).write_bytes(b"another's")
        worker.order(Publish(leases=(assign.lease,)))
    worker.await_report(Ready, assign.lease, such=lambda report: report.name == names[-1])
    worker.order(Publish(leases=(assign.lease,)))
    assert isinstance(worker.await_end(assign.lease), Finished)
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


@pytest.mark.parametrize("fields", [{}, {"limit_rate_bps": 10_000_000}], ids=["unnamed", "a part file"])
def test_a_folder_that_is_removed_meanwhile_is_made_again_by_the_next_attempt(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, fields: dict[str, object]
) -> None:
    worker.auto_publish = False
    url = server.serve("/f", SMALL)
    assign = worker.assign(url, folder, **fields)
    worker.await_report(Ready, assign.lease)
    shutil.rmtree(folder)
    worker.order(Publish(leases=(assign.lease,)))
    failed = worker.await_end(assign.lease)
    assert isinstance(failed, Failed)
    assert failed.code is FailureCode.FILE_BUSY
    worker.auto_publish = True
    assert isinstance(worker.finish(worker.assign(url, folder, **fields)), Finished)
    assert (folder / "f").read_bytes() == BODY


@pytest.mark.parametrize(
    "fields",
    [
        {"on_conflict": OnConflict.FAIL},
        {"on_conflict": OnConflict.OVERWRITE},
        {"options": TransferOptions(remote_time=True)},
        {"options": TransferOptions(size_bytes=len(BODY))},
        {"limit_rate_bps": 10_000_000},
    ],
)
def test_what_asks_for_more_than_a_file_has_a_part_file(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, fields: dict[str, object]
) -> None:
    worker.auto_publish = False
    assign = worker.assign(server.serve("/f", SMALL), folder, **fields)
    assert worker.await_report(Ready, assign.lease).part == ".f.autodl-part"
    assert [path.name for path in folder.iterdir()] == [".f.autodl-part"]


def test_where_unnamed_files_get_no_names_it_is_tried_again_with_a_part_file(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path
) -> None:
    url = server.serve("/f", SMALL, SMALL)
    with Strace(worker.process.pid, tmp_path / "calls", *fail_at("linkat", "EPERM", "1+")):
        first = worker.assign(url, folder)
        failed = worker.await_end(first.lease)
        assert isinstance(failed, Failed)
        assert (failed.code, failed.part) == (FailureCode.RESOURCES, None)
        assert list(folder.iterdir()) == []
        assert isinstance(worker.finish(worker.assign(url, folder)), Finished)
    assert (folder / "f").read_bytes() == BODY


@pytest.mark.parametrize("call", ["pwritev2", "linkat"])
def test_a_disk_that_fails_fails_it_as_any_other(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path, call: str
) -> None:
    with Strace(worker.process.pid, tmp_path / "calls", *fail_at(call, "EIO", "1+")):
        failed = worker.finish(worker.assign(server.serve("/f", SMALL, SMALL), folder))
    assert isinstance(failed, Failed)
    assert failed.code is FailureCode.DISK
    assert list(folder.iterdir()) == []


CLOSE_FAILS = fail_at("close", "EIO", "1+")
"""As on file systems in user space, which hear of it."""


def is_alive(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> bool:
    worker.auto_publish = True
    return isinstance(worker.finish(worker.assign(server.serve("/next", SMALL), folder)), Finished)


def test_one_that_can_not_be_closed_is_finished_and_its_worker_goes_on(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path
) -> None:
    assign, _ = ready(server, worker, folder)
    other, _ = ready(server, worker, folder)
    with Strace(worker.process.pid, tmp_path / "calls", *CLOSE_FAILS):
        worker.order(Publish(leases=(assign.lease,)))
        assert isinstance(worker.await_end(assign.lease), Finished)
    worker.order(Publish(leases=(other.lease,)))
    assert isinstance(worker.await_end(other.lease), Finished)
    assert is_alive(server, worker, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["f", "f.1", "next"]


def test_one_that_can_not_be_closed_is_halted_and_its_worker_goes_on(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path
) -> None:
    assign, _ = ready(server, worker, folder)
    with Strace(worker.process.pid, tmp_path / "calls", *CLOSE_FAILS):
        worker.order(Halt(lease=assign.lease, discard=True))
        assert isinstance(worker.await_end(assign.lease), Halted)
    assert is_alive(server, worker, folder)


@pytest.mark.parametrize("call", ["fsync", "pwritev2"])
def test_one_that_can_be_neither_saved_nor_closed_fails_alone(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path, call: str
) -> None:
    assert is_alive(server, worker, folder)
    fails = fail_at(call, "EIO", "1+")[1:]
    with Strace(worker.process.pid, tmp_path / "calls", f"--trace=close,{call}", *CLOSE_FAILS[1:], *fails):
        failed = worker.finish(worker.assign(server.serve("/f", SMALL, SMALL), folder))
        assert isinstance(failed, Failed)
        assert failed.code is FailureCode.DISK
    assert is_alive(server, worker, folder)


@pytest.mark.parametrize("when", ["1+", "2+"])
def test_where_the_kernel_tells_nothing_of_what_is_synced_together_all_are_saved_and_the_next_ones_too(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path, when: str
) -> None:
    with Strace(worker.process.pid, tmp_path / "calls", *fail_at("io_getevents", "EPERM", when)) as calls:
        for place in ("a", "b"):
            assigns = [worker.assignment(server.serve(f"/{place}{n}", SMALL), folder) for n in range(30)]
            worker.order(*assigns)
            for assign in assigns:
                assert isinstance(worker.finish(assign), Finished)
        calls.stop()
        assert "EPERM" in calls.text()
    assert {path.read_bytes() for path in folder.iterdir()} == {BODY}
