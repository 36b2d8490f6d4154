"""A disk that does not answer: who writes to it waits in the kernel and can't be killed, and nobody else waits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.faulty import FaultyDaemon, check_files, digest
from support.loop_disk import LoopDisk, loop_disk
from support.nginx import Nginx, Served
from support.waiting import wait_until

MakeFaulty = Callable[..., FaultyDaemon]

CONFIG = """
max_tasks_num = 1
[transfer]
min_free_bytes = 0
connections = 1
[retry]
max_attempts = 0
first_delay_s = 0.05
max_delay_s = 0.2
[worker]
answer_timeout_s = 2
"""


@pytest.fixture
def disk(place: Path) -> Iterator[LoopDisk]:
    with loop_disk(place / "image", place / "hanging") as made:
        yield made


@pytest.fixture
def daemon(make_faulty: MakeFaulty) -> FaultyDaemon:
    made = make_faulty(config=CONFIG)
    made.revive()
    return made


def hang(daemon: FaultyDaemon, disk: LoopDisk, one: Served) -> int:
    """Have a worker hang in the middle of a file; return its task."""
    [task_id] = daemon.call("add", urls=[one.slow_url], dir=str(disk.folder))["ids"]
    control = disk.folder / f".{one.name.rpartition('/')[2]}.autodl-ctl"
    wait_until(control.exists, "a checkpoint", seen=daemon.log_end)
    assert daemon.call("status", id=task_id)["state"] == "downloading"
    disk.freeze()
    return int(task_id)


def test_who_waits_for_a_disk_that_hangs_takes_no_place_from_others(
    daemon: FaultyDaemon, disk: LoopDisk, nginx: Nginx
) -> None:
    one, two, elsewhere = (nginx.file(f"hanging/{name}.bin", 900_000, rate="150k") for name in ("1", "2", "other"))
    first = hang(daemon, disk, one)
    [worker] = daemon.family().workers
    [second] = daemon.call("add", urls=[two.url], dir=str(disk.folder), priority=10)["ids"]
    served = dict(zip(daemon.queue([elsewhere.url]), [elsewhere], strict=True))
    check_files(daemon, daemon.settle(served), served)  # there is but one place, and who hangs had it
    killed = re.findall(r"worker (\d+) of uid \d+ does not answer and is killed", daemon.log())
    assert killed.count(str(worker.pid)) == 1
    assert daemon.log().count("can't be ended") == 1
    for task_id, what in ((first, "goes on when that answers"), (second, "begins when that answers")):
        why = daemon.call("explain", id=task_id)["reason"]
        assert str(disk.folder) in why
        assert what in why
    disk.thaw()
    tasks = daemon.settle([first, second])
    assert {digest(Path(task["dest"])) for task in tasks.values()} == {one.sha256, two.sha256}
    assert len(daemon.names(disk.folder)) == 3, "lost+found, and one file of each"


def test_a_daemon_whose_worker_hangs_stops_in_time_and_its_next_start_goes_on(
    daemon: FaultyDaemon, disk: LoopDisk, nginx: Nginx
) -> None:
    one = nginx.file("hanging/stopped.bin", 900_000, rate="150k")
    task_id = hang(daemon, disk, one)
    [worker] = daemon.family().workers
    assert daemon.stop() == 0
    assert worker.is_running(), "not even the end of the daemon ends it"
    daemon.revive()
    disk.thaw()
    task = daemon.settle([task_id])[task_id]
    assert digest(Path(task["dest"])) == one.sha256
    # The hanging worker's own request may be logged after that of the next one.
    wait_until(lambda: 206 in [fetch.status for fetch in nginx.fetches("stopped.bin")], "it went on from its part")
