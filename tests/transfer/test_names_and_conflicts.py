"""Where a download ends up, and that nothing which was there before is lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.misbehaving_server import Case, MisbehavingServer
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.task import OnConflict
from autodl_lib.contract.worker_messages import Failed, Finished, Halt, Publish, Ready, Started

BODY = os.urandom(300_000)
"""Too large to come at once: what does has no part file (test_unnamed_files)."""
GOOD = Case(body=BODY, etag='"v1"')


def download(worker: WorkerHarness, url: str, folder: Path | str, **fields: Any) -> Any:
    """Download and return the last report."""
    return worker.await_end(worker.assign(url, folder, **fields).lease)


def test_a_name_that_is_taken_gets_a_number(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    (folder / "a.tar.gz").write_bytes(b"mine")
    url = server.serve("/a.tar.gz", GOOD)
    assert download(worker, url, folder).dest == str(folder / "a.1.tar.gz")
    assert download(worker, url, folder).dest == str(folder / "a.2.tar.gz")
    assert (folder / "a.tar.gz").read_bytes() == b"mine"


def test_many_downloads_of_one_name_all_get_their_own(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    url = server.serve("/a.txt", GOOD)
    assigns = [worker.assignment(url, folder) for _ in range(40)]
    worker.order(*assigns)
    names = {Path(worker.finish(assign).dest).name for assign in assigns}  # type: ignore[union-attr]
    assert names == {"a.txt", *(f"a.{number}.txt" for number in range(1, 40))}
    assert {path.name for path in folder.iterdir()} == names


def test_a_conflict_fails_before_the_download_when_the_name_is_known(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    (folder / "out").write_bytes(b"mine")
    report = download(worker, server.serve("/f", GOOD), folder, output="out", on_conflict=OnConflict.FAIL)
    assert report.code is FailureCode.CONFLICT
    assert server.requests == []
    assert (folder / "out").read_bytes() == b"mine"


def test_a_conflict_fails_when_the_server_names_the_file(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    (folder / "f").write_bytes(b"mine")
    report = download(worker, server.serve("/f", GOOD), folder, on_conflict=OnConflict.FAIL)
    assert (report.code, report.bytes_received) == (FailureCode.CONFLICT, 0)
    assert [path.name for path in folder.iterdir()] == ["f"]


def test_overwrite_replaces_the_file_at_once(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    (folder / "f").write_bytes(b"old")
    report = download(worker, server.serve("/f", GOOD), folder, on_conflict=OnConflict.OVERWRITE)
    assert report.dest == str(folder / "f")
    assert (folder / "f").read_bytes() == BODY


def test_overwrite_does_not_touch_a_folder(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    (folder / "f").mkdir()
    report = download(worker, server.serve("/f", GOOD), folder, on_conflict=OnConflict.OVERWRITE)
    assert report.code is FailureCode.CONFLICT
    assert (folder / "f").is_dir()


@pytest.mark.parametrize("policy", list(OnConflict))
def test_a_symlink_at_the_final_name_is_never_written_through(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path, policy: OnConflict
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (folder / "f").symlink_to(precious)
    download(worker, server.serve("/f", GOOD), folder, on_conflict=policy)
    assert precious.read_bytes() == b"precious"
    assert (folder / "f").is_symlink() is (policy is not OnConflict.OVERWRITE)


@pytest.mark.parametrize("dangling", [True, False])
def test_a_symlink_at_the_part_name_is_never_written_through(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path, dangling: bool
) -> None:
    precious = tmp_path / "precious"
    if not dangling:
        precious.write_bytes(b"precious")
    (folder / ".f.autodl-part").symlink_to(precious)
    (folder / ".f.autodl-ctl").symlink_to(precious)
    report = download(worker, server.serve("/f", GOOD), folder)
    assert isinstance(report, Finished)
    assert Path(report.dest).read_bytes() == BODY
    assert not precious.exists() if dangling else precious.read_bytes() == b"precious"


def test_an_abandoned_part_is_replaced_never_written_to(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    (folder / "mine").write_bytes(b"a second name of the same file")
    os.link(folder / "mine", folder / ".f.autodl-part")
    assert download(worker, server.serve("/f", GOOD), folder).dest == str(folder / "f")
    assert (folder / "mine").read_bytes() == b"a second name of the same file"


def test_a_name_taken_during_the_download_is_noticed_when_publishing(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    worker.auto_publish = False
    assign = worker.assign(server.serve("/f", GOOD), folder)
    first = worker.await_report(Ready, assign.lease)
    (folder / "f").write_bytes(b"mine")
    worker.order(Publish(leases=(assign.lease,)))
    second = worker.await_report(Ready, assign.lease, such=lambda report: report.name != first.name)
    assert (second.name, second.identity) == ("f.1", first.identity)
    worker.order(Publish(leases=(assign.lease,)))
    finished = worker.await_end(assign.lease)
    assert isinstance(finished, Finished)
    assert finished.dest == str(folder / "f.1")
    assert (folder / "f").read_bytes() == b"mine"


def test_a_name_taken_during_the_download_is_a_conflict_when_asked_for(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    worker.auto_publish = False
    url = server.serve("/f", GOOD)
    assign = worker.assign(url, folder, on_conflict=OnConflict.FAIL)
    worker.await_report(Ready, assign.lease)
    (folder / "f").write_bytes(b"mine")
    worker.order(Publish(leases=(assign.lease,)))
    failed = worker.await_end(assign.lease)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.part) == (FailureCode.CONFLICT, ".f.autodl-part")
    (folder / "f").unlink()
    worker.auto_publish = True
    report = download(worker, url, folder, tag=assign.tag, name="f", part=failed.part, on_conflict=OnConflict.FAIL)
    assert isinstance(report, Finished)
    assert (folder / "f").read_bytes() == BODY
    assert len(server.requests) == 1


def test_the_part_of_a_live_worker_is_not_shared(
    server: MisbehavingServer, start_worker: Callable[[], WorkerHarness], folder: Path
) -> None:
    first, second = start_worker(), start_worker()
    url = server.serve("/f", Case(body=BODY, hold_after=1000), GOOD, GOOD, GOOD)
    held = first.assign(url, folder)
    assert server.held.acquire(timeout=30)
    first.await_report(Started, held.lease)
    assert download(second, url, folder).dest == str(folder / "f.1")
    for policy in (OnConflict.FAIL, OnConflict.OVERWRITE):
        assert download(second, url, folder, on_conflict=policy).code is FailureCode.FILE_BUSY
    server.release()
    finished = first.await_end(held.lease)
    assert isinstance(finished, Finished)
    assert finished.dest == str(folder / "f")


def test_a_part_that_was_replaced_is_not_published(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    worker.auto_publish = False
    assign = worker.assign(server.serve("/f", GOOD), folder)
    ready = worker.await_report(Ready, assign.lease)
    (folder / ready.part).rename(folder / "moved")
    (folder / ready.part).write_bytes(b"somebody's")
    worker.order(Publish(leases=(assign.lease,)))
    assert isinstance(worker.await_end(assign.lease), Failed)
    assert (folder / ready.part).read_bytes() == b"somebody's"
    assert not (folder / "f").exists()


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="report.pdf"', "report.pdf"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="..\\\\..\\\\boot.ini"', "boot.ini"),
        ('attachment; filename=".bashrc"', "_bashrc"),
        ('attachment; filename=".."', "f"),
        ("attachment; filename*=UTF-8''na%C3%AFve.txt", "naïve.txt"),
        ("attachment; filename*=UTF-8''a%2Fb%00c", "b_c"),
    ],
)
def test_a_server_can_name_the_file_but_not_the_place(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, header: str, name: str
) -> None:
    case = Case(body=BODY, headers=(f"Content-Disposition: {header}",))
    assert download(worker, server.serve("/f", case), folder).dest == str(folder / name)
    assert [path.name for path in folder.iterdir()] == [name]


@pytest.mark.parametrize("output", ["a/b", "..", ".", "", "x\0y", "n" * 256])
def test_an_output_that_is_no_plain_name_is_refused(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, output: str
) -> None:
    report = download(worker, server.serve("/f", GOOD), folder, output=output)
    assert isinstance(report, Failed)
    assert report.code is FailureCode.FOLDER
    assert server.requests == []


def test_an_output_of_the_longest_possible_name_works(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    name = "é" * 125 + ".html"
    url = server.serve("/f", GOOD)
    assert download(worker, url, folder, output=name).dest == str(folder / name)
    assert download(worker, url, folder, output=name).dest == str(folder / ("é" * 124 + ".1.html"))


def test_missing_folders_are_made(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    report = download(worker, server.serve("/f", GOOD), folder / "a" / "b")
    assert report.dest == str(folder / "a" / "b" / "f")


@pytest.mark.parametrize("path", ["relative/path", "/dev/null/x", "/proc/none"])
def test_a_folder_that_cannot_be_had_is_named(worker: WorkerHarness, path: str) -> None:
    report = download(worker, "http://127.0.0.1:9/f", path)
    assert report.code in (FailureCode.FOLDER, FailureCode.PERMISSION)
    assert path in report.message


def test_a_file_in_the_place_of_the_folder_is_named(worker: WorkerHarness, folder: Path) -> None:
    (folder / "file").write_bytes(b"")
    report = download(worker, "http://127.0.0.1:9/f", folder / "file")
    assert (report.code, report.message) == (FailureCode.FOLDER, f"{folder / 'file'} is not a folder")


def test_a_folder_that_was_replaced_is_noticed(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    url = server.serve("/f", GOOD)
    download(worker, url, folder)
    folder.rename(folder.with_name("old"))
    folder.mkdir()
    assert download(worker, url, folder).dest == str(folder / "f")
    assert (folder / "f").read_bytes() == BODY


def test_a_full_disk_is_noticed_before_it_is_full(
    server: MisbehavingServer, start_worker: Callable[..., WorkerHarness], folder: Path
) -> None:
    worker = start_worker(min_free_bytes=9 * 10**15)
    report = download(worker, server.serve("/f", GOOD), folder)
    assert report.code is FailureCode.DISK_FULL
    assert str(folder) in report.message
    assert list(folder.iterdir()) == []


def test_a_halt_while_ready_keeps_the_complete_part(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    worker.auto_publish = False
    url = server.serve("/f", Case(body=BODY))
    assign = worker.assign(url, folder)
    worker.await_report(Ready, assign.lease)
    worker.order(Halt(lease=assign.lease, discard=False))
    halted = worker.await_end(assign.lease)
    assert halted.bytes_done == len(BODY)  # type: ignore[union-attr]
    worker.auto_publish = True
    report = download(worker, url, folder, tag=assign.tag, name="f", part=halted.part)  # type: ignore[union-attr]
    assert isinstance(report, Finished)
    assert len(server.requests) == 1
    assert [path.name for path in folder.iterdir()] == ["f"]


def test_a_halt_after_publish_reports_finished(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    worker.auto_publish = False
    assign = worker.assign(server.serve("/f", GOOD), folder)
    worker.await_report(Ready, assign.lease)
    worker.order(Publish(leases=(assign.lease,)), Halt(lease=assign.lease, discard=True))
    assert isinstance(worker.await_end(assign.lease), Finished)
    assert (folder / "f").read_bytes() == BODY


def test_nothing_but_the_final_name_is_ever_visible_as_the_file(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    seen: set[int] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for path in folder.glob("f*"):
                seen.add(path.stat().st_size)

    watcher = threading.Thread(target=watch)
    watcher.start()
    url = server.serve("/f", GOOD)
    for _ in range(20):
        download(worker, url, folder)
    over.set()
    watcher.join()
    assert seen <= {len(BODY)}


def test_a_second_name_of_somebody_s_file_at_the_control_name_costs_that_file_nothing(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    os.link(precious, folder / ".f.autodl-ctl")
    assert isinstance(download(worker, server.serve("/f", GOOD), folder), Finished)
    assert precious.read_bytes() == b"precious"


def test_a_part_that_another_program_writes_to_is_not_published(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    url = server.serve("/f", Case(body=BODY, etag='"v1"', hold_after=200_000), GOOD)
    assign = worker.assign(url, folder)
    assert server.held.acquire(timeout=30)
    worker.await_report(Started, assign.lease, such=lambda report: report.part is not None)
    with (folder / ".f.autodl-part").open("ab") as part:
        part.truncate(len(BODY) + 1000)
    server.release()
    failed = worker.await_end(assign.lease)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.part) == (FailureCode.FILE_BUSY, None)
    assert list(folder.iterdir()) == []


def test_a_part_that_another_program_writes_to_before_it_is_published_is_not(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    worker.auto_publish = False
    assign = worker.assign(server.serve("/f", GOOD), folder)
    ready = worker.await_report(Ready, assign.lease)
    (folder / ready.part).write_bytes(os.urandom(len(BODY)))
    worker.order(Publish(leases=(assign.lease,)))
    failed = worker.await_end(assign.lease)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.part) == (FailureCode.FILE_BUSY, None)
    assert list(folder.iterdir()) == []
