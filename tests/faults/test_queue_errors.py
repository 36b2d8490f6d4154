"""The queue's own disk fails: nothing is acknowledged that is not kept; the daemon goes on, or says why it can't."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.faulty import FaultyDaemon, check_files
from support.nginx import Nginx, Served
from support.rpc import Refused
from support.strace import Strace, fail_at
from support.waiting import PATIENCE_S, wait_until

from autodl_lib.store.database import is_hopeless

MakeFaulty = Callable[..., FaultyDaemon]


class Adds:
    """Adds files one by one, and knows which were acknowledged."""

    def __init__(self, daemon: FaultyDaemon, nginx: Nginx, name: str) -> None:
        self._daemon = daemon
        self._nginx = nginx
        self._name = name
        self._number = 0
        self.served: dict[int, Served] = {}
        self.refusals: list[str] = []

    def add(self, *, slow: bool = False) -> bool:
        """Add a file; return whether that was acknowledged."""
        self._number += 1
        one = self._nginx.file(f"queue/{self._name}-{self._number}.bin", 60_000 if slow else 2000, rate="60k")
        try:
            with self._daemon.connect() as wire:
                [task_id] = wire.call("add", urls=[one.slow_url if slow else one.url], dir=str(self._daemon.files))[
                    "ids"
                ]
        except Refused as refusal:
            self.refusals.append(f"{refusal.code}: {refusal.message}")
            return False
        except (ConnectionError, FileNotFoundError):
            return False
        self.served[task_id] = one
        return True

    def check(self) -> None:
        """All that were acknowledged end well; what was refused may have been queued before the disk failed."""
        codes = {refusal.partition(":")[0] for refusal in self.refusals}
        assert codes <= {"store_unusable", "shutting_down"}, self.refusals
        tasks = self._daemon.settle(self.served)
        others = {task["id"] for task in self._daemon.tasks()} - tasks.keys()
        self._daemon.settle(others)
        allowed = [Path(str(self._daemon.status(task_id)["dest"])).name for task_id in others]
        check_files(self._daemon, tasks, self.served, allowed)


def ended(daemon: FaultyDaemon) -> int:
    """Wait until the daemon has ended by itself, and return its exit status."""
    assert daemon.process is not None
    return daemon.process.wait(PATIENCE_S)


@pytest.fixture
def daemon(make_faulty: MakeFaulty) -> FaultyDaemon:
    made = make_faulty()
    made.revive()
    return made


@pytest.mark.parametrize(
    ("calls", "error", "when"),
    [
        ("pwrite64", "ENOSPC", "1+"),
        ("pwrite64", "EIO", "2+3"),
        ("fdatasync", "EIO", "1+"),
        ("fdatasync", "ENOSPC", "2+2"),
        ("pwrite64", "EROFS", "3+"),
        ("pread64", "EIO", "1+"),
        ("ftruncate", "EIO", "1+"),
    ],
)
def test_while_the_disk_fails_nothing_is_acknowledged_that_is_not_kept(
    daemon: FaultyDaemon, nginx: Nginx, place: Path, calls: str, error: str, when: str
) -> None:
    adds = Adds(daemon, nginx, f"{calls}-{error}")
    assert adds.add(slow=True)
    with Strace(daemon.pid, place / "trace", *fail_at(calls, error, when)):
        for _ in range(6):
            adds.add()
    wait_until(lambda: daemon.insist(daemon.tasks) and adds.add(), "adds are acknowledged again", seen=daemon.log_end)
    daemon.kill()
    daemon.revive()
    adds.check()


def test_a_disk_that_is_really_full_refuses_adds_and_goes_on_when_there_is_room(
    make_faulty: MakeFaulty, nginx: Nginx
) -> None:
    daemon = make_faulty()
    with small_disk(daemon.state_dir, "2m"):
        daemon.state_dir.chmod(0o700)
        daemon.revive()
        adds = Adds(daemon, nginx, "full")
        assert adds.add(slow=True)
        filler = daemon.state_dir / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        wait_until(lambda: not adds.add(), "an add is refused")
        assert "full" in adds.refusals[0]
        filler.unlink()
        wait_until(adds.add, "adds are acknowledged again", seen=daemon.log_end)
        adds.check()
        assert daemon.stop() == 0


def test_of_a_disk_that_is_nearly_full_the_rest_is_for_the_tasks_that_there_are(
    make_faulty: MakeFaulty, nginx: Nginx
) -> None:
    """Whoever has filled it: what runs comes to its end, and what waits can be cancelled."""
    daemon = make_faulty()
    with small_disk(daemon.state_dir, "40m"):
        daemon.state_dir.chmod(0o700)
        daemon.revive()
        adds = Adds(daemon, nginx, "nearly-full")
        assert adds.add(slow=True)
        waiting = daemon.call("add", urls=["http://127.0.0.1:1/x"] * 1000, dir=str(daemon.files), paused=True)["ids"]
        filler = daemon.state_dir / "filler"
        disk = os.statvfs(daemon.state_dir)
        filler.write_bytes(bytes(disk.f_bfree * disk.f_frsize - 1_500_000))
        assert not adds.add()
        assert "nearly full" in adds.refusals[0]
        assert daemon.call("cancel", ids=waiting)["ids"] == waiting
        adds.check()
        filler.unlink()
        assert adds.add()
        adds.check()
        assert daemon.stop() == 0


def test_a_queue_that_becomes_read_only_and_writable_again_goes_on(make_faulty: MakeFaulty, nginx: Nginx) -> None:
    daemon = make_faulty()
    with small_disk(daemon.state_dir, "8m"):
        daemon.state_dir.chmod(0o700)
        daemon.revive()
        adds = Adds(daemon, nginx, "read-only")
        assert adds.add(slow=True)
        with Strace(daemon.pid, daemon.folder / "trace", *fail_at("pwrite64,ftruncate,fdatasync", "EROFS", "1+")):
            assert not adds.add()
        wait_until(adds.add, "adds are acknowledged again", seen=daemon.log_end)
        adds.check()
        assert daemon.stop() == 0


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a file system of so many bytes."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_queue_that_another_program_has_locked_waits_for_it(daemon: FaultyDaemon, nginx: Nginx) -> None:
    adds = Adds(daemon, nginx, "locked")
    assert adds.add(slow=True)
    other = sqlite3.connect(daemon.state_dir / "queue.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert not adds.add()
    assert "locked" in adds.refusals[0]
    other.execute("ROLLBACK")
    other.close()
    wait_until(adds.add, "adds are acknowledged again", seen=daemon.log_end)
    adds.check()


def test_no_worker_is_blamed_for_reports_that_nobody_can_record(make_faulty: MakeFaulty, nginx: Nginx) -> None:
    """What it answers is not read either, meanwhile."""
    daemon = make_faulty(config="[worker]\nanswer_timeout_s = 1\n")
    daemon.revive()
    adds = Adds(daemon, nginx, "unrecorded")
    assert adds.add(slow=True)
    other = sqlite3.connect(daemon.state_dir / "queue.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    wait_until(lambda: daemon.log().count("trying again") >= 3, "reports wait", seen=daemon.log_end)
    other.execute("ROLLBACK")
    other.close()
    adds.check()
    assert [task["attempts"] for task in daemon.tasks()] == [1]
    assert "does not answer" not in daemon.log()


@pytest.mark.parametrize("removed", ["folder", "queue.db", "queue.db-wal"])
def test_a_queue_that_is_removed_while_it_runs_acknowledges_nothing_more_and_ends_the_daemon(
    daemon: FaultyDaemon, nginx: Nginx, removed: str
) -> None:
    adds = Adds(daemon, nginx, "removed")
    assert adds.add()
    daemon.settle(adds.served)
    if removed == "folder":
        shutil.rmtree(daemon.state_dir)
    else:
        (daemon.state_dir / removed).unlink()
    assert not adds.add()
    assert "moved or removed" in adds.refusals[0]
    assert ended(daemon) == 1
    assert "moved or removed" in daemon.log()
    again = Adds(daemon, nginx, "again")
    daemon.process = None
    daemon.revive()
    assert again.add()
    daemon.settle(again.served)


def test_a_queue_whose_pages_are_damaged_while_it_runs_ends_the_daemon_which_says_so(
    make_faulty: MakeFaulty, nginx: Nginx
) -> None:
    daemon = make_faulty()
    daemon.revive()
    urls = [nginx.file(f"queue/damaged-{number}.bin", 10).url for number in range(3)]
    for _ in range(60):
        with daemon.connect() as wire:
            wire.call("add", urls=urls * 50, dir=str(daemon.files), paused=True)
    assert daemon.stop() == 0
    daemon.revive()
    database = daemon.state_dir / "queue.db"
    with database.open("r+b") as file:
        for page in range(3, database.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xa5" * 4096)
    with contextlib.suppress(Refused, ConnectionError):
        daemon.tasks()
    with contextlib.suppress(Refused, ConnectionError, FileNotFoundError):
        Adds(daemon, nginx, "damaged").add()
    assert ended(daemon) == 1
    assert "damaged" in daemon.log()
    assert ".recover" in daemon.log()
    daemon.launch()
    assert ended(daemon) == 1


@pytest.mark.parametrize(
    ("code", "hopeless"),
    [
        (sqlite3.SQLITE_CORRUPT, True),
        (sqlite3.SQLITE_CORRUPT_VTAB, True),
        (sqlite3.SQLITE_NOTADB, True),
        (sqlite3.SQLITE_PROTOCOL, True),  # a lock whose release failed is held for as long as the process lives
        (sqlite3.SQLITE_READONLY_DBMOVED, True),
        (sqlite3.SQLITE_READONLY, False),
        (sqlite3.SQLITE_BUSY, False),
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_IOERR_WRITE, False),
    ],
)
def test_what_passes_is_waited_out_and_what_does_not_ends_the_daemon(code: int, hopeless: bool) -> None:
    error = sqlite3.OperationalError("as SQLite says")
    error.sqlite_errorcode = code
    assert is_hopeless(error) is hopeless
