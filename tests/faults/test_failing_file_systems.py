"""File systems that fail as they really do: made read-only by the kernel in the middle of it, or taken away."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from support.faulty import FaultyDaemon, check_files, digest
from support.loop_disk import loop_disk
from support.nginx import Nginx, Served
from support.processes import kill
from support.rpc import Refused
from support.waiting import PATIENCE_S, wait_until

MakeFaulty = Callable[..., FaultyDaemon]


def add(daemon: FaultyDaemon, one: Served) -> int | str:
    """Add a file; return its task's number, or why not."""
    try:
        with daemon.connect() as wire:
            return int(wire.call("add", urls=[one.slow_url], dir=str(daemon.files))["ids"][0])
    except Refused as refusal:
        return f"{refusal.code}: {refusal.message}"


def add_all(daemon: FaultyDaemon, nginx: Nginx, name: str) -> dict[int, Served]:
    """Add some files, which are all acknowledged."""
    served = {}
    for number in range(8):
        one = nginx.file(f"failing/{name}-{number}.bin", 40_000, rate="40k")
        task_id = add(daemon, one)
        assert isinstance(task_id, int), task_id
        served[task_id] = one
    return served


def test_what_was_acknowledged_before_the_queue_s_disk_failed_is_there_after_its_repair(
    make_faulty: MakeFaulty, nginx: Nginx, place: Path
) -> None:
    daemon = make_faulty()
    with loop_disk(place / "image", daemon.state_dir) as disk:
        daemon.state_dir.chmod(0o700)
        daemon.revive()
        wait_until(lambda: daemon.family().manager, "the pool has started")
        served = add_all(daemon, nginx, "queue")
        disk.abort()
        one = next(iter(served.values()))
        assert str(add(daemon, one)).startswith(
            f"store_unusable: the queue {daemon.state_dir}/queue.db can't be written"
        )
        assert str(add(daemon, one)).startswith("store_unusable")
        assert daemon.log().count("nothing is acknowledged until it can") == 1
        assert daemon.call("stats")["max_tasks_num"] == 4
        assert "can be written again" not in daemon.log()
        assert daemon.stop() == 0
        disk.repair()
        daemon.revive()
        check_files(daemon, daemon.settle(served), served)
        assert daemon.stop() == 0


def test_a_report_queue_that_has_no_place_for_its_socket_says_so(make_faulty: MakeFaulty, place: Path) -> None:
    daemon = make_faulty()
    with loop_disk(place / "image", daemon.state_dir) as disk:
        daemon.state_dir.chmod(0o700)
        daemon.revive()
        manager = wait_until(lambda: daemon.family().manager, "the pool has started")
        disk.abort()
        manager.kill()
        words = "its socket can't be made in the state folder: Read-only file system"
        wait_until(lambda: words in daemon.log(), "it is said", seen=daemon.log_end)
        assert daemon.stop() == 0


def test_a_queue_whose_disk_is_taken_away_ends_the_daemon_and_is_there_when_the_disk_is_back(
    make_faulty: MakeFaulty, nginx: Nginx, place: Path
) -> None:
    daemon = make_faulty()
    with loop_disk(place / "image", daemon.state_dir) as disk:
        daemon.state_dir.chmod(0o700)
        daemon.revive()
        served = add_all(daemon, nginx, "taken-away")
        disk.unmount()
        # A report may come before, and end it.
        with contextlib.suppress(ConnectionError, FileNotFoundError):
            assert isinstance(add(daemon, next(iter(served.values()))), str)
        assert daemon.process is not None
        assert daemon.process.wait(PATIENCE_S) == 1
        assert "moved or removed" in daemon.log()
        disk.mount()
        daemon.process = None
        daemon.revive()
        check_files(daemon, daemon.settle(served), served)
        assert daemon.stop() == 0


def test_a_destination_that_fails_in_mid_download_fails_its_task_with_that_and_a_retry_brings_the_file(
    make_faulty: MakeFaulty, nginx: Nginx, place: Path
) -> None:
    daemon = make_faulty()
    daemon.revive()
    with loop_disk(place / "image", place / "destination") as disk:
        one = nginx.file("failing/destination.bin", 900_000, rate="150k")
        [task_id] = daemon.call("add", urls=[one.slow_url], dir=str(disk.folder), connections=1)["ids"]
        daemon.wait_for(task_id, lambda task: task["bytes_done"] > 50_000, "bytes come")
        disk.abort()
        failed = daemon.wait_for(task_id, lambda task: task["state"] == "failed", "it fails")
        assert "Read-only file system" in failed["error"]["message"]
        kill(*daemon.family().workers)  # they would keep the folder open for a while
        disk.repair()
        daemon.steer("retry", task_id)
        task = daemon.settle([task_id])[task_id]
        assert digest(Path(task["dest"])) == one.sha256
        assert daemon.names(disk.folder) == ["destination.bin", "lost+found"]
