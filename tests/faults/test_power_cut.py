"""A power cut at any moment, with anything in doubt that was not synced: nothing promised is lost, nothing is wrong.

A run of a daemon is recorded call by call, and a disk is made of every beginning of it (support/disk_model.py).
AUTODL_FAULT_TREES sets how many disks are looked at, AUTODL_FAULT_REVIVED on how many of such a daemon is started and
brings everything to its end, AUTODL_FAULT_SEED which.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import disk_model
from support.disk_model import Doubt, File, Tree
from support.faulty import FaultyDaemon, check_files
from support.machine_record import Record, RecordedDaemon, read_record
from support.nginx import Nginx, Served
from support.waiting import wait_until

from autodl_lib.store.database import open_database
from autodl_lib.worker.files.control_file import decode_slots

SEED = int(os.environ.get("AUTODL_FAULT_SEED") or random.randrange(10**9))
TREES = int(os.environ.get("AUTODL_FAULT_TREES", "1000"))
REVIVED = int(os.environ.get("AUTODL_FAULT_REVIVED", "3"))

CONFIG = """
max_tasks_num = 3
[transfer]
min_free_bytes = 0
connections = 3
[retry]
max_attempts = 0
first_delay_s = 0.05
max_delay_s = 0.2
"""


MakeFaulty = Callable[..., FaultyDaemon]


@dataclass(frozen=True, slots=True)
class Story:
    """What was recorded, and what each task is to bring."""

    record: Record
    served: dict[int, Served]
    folder: str
    inodes: dict[int, File]
    state: Path


@pytest.fixture(scope="module")
def story(nginx: Nginx, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Record a run with every kind of download."""
    place = tmp_path_factory.mktemp("cut")
    (place / "disk" / "d").mkdir(parents=True)
    daemon = RecordedDaemon(place / "disk" / "d", config=CONFIG)
    daemon.files = daemon.folder / "files" / "new" / "deep"
    try:
        daemon.revive()
        served = _live(daemon, nginx)
        assert daemon.stop() == 0
    finally:
        assert daemon.end_all() == []
    wait_until(lambda: "+++ exited" in daemon.record.read_text()[-3000:], "strace has ended")
    assert "IOCB_CMD_FSYNC" in daemon.record.read_text(), "files of the crowd were synced together"
    record = read_record(daemon.record, place / "disk", ("d", "d/faults", "d/home", "d/files"))
    inodes = {}
    for path, node in record.disk.live().items():
        real = place / "disk" / path.lstrip("/")
        inodes[real.stat().st_ino] = node
        if real.suffix == ".bin":
            assert real.read_bytes() == disk_model._content(node.writes), f"the model is wrong about {path}"
    return Story(record, served, str(daemon.files), inodes, daemon.state_dir)


def _live(daemon: RecordedDaemon, nginx: Nginx) -> dict[int, Served]:
    served: dict[int, Served] = {}

    def queue(name: str, size_bytes: int, rate: str | None = None, **params: object) -> int:
        one = nginx.file(f"cut/{name}.bin", size_bytes, rate=rate or "1k")
        [task_id] = daemon.queue([one.slow_url if rate else one.url], **params)
        served[task_id] = one
        return task_id

    def bytes_come(task_id: int, at_least: int = 1) -> None:
        daemon.wait_for(task_id, lambda task: task["bytes_done"] >= at_least, "bytes come")

    slow = queue("slow", 700_000, "100k")
    bytes_come(slow)
    (daemon.files / "replaced.bin").write_bytes(b"what was there before")
    for number in range(3):
        queue(f"small-{number}", 3000)
    queue("replaced", 2500, on_conflict="overwrite")
    again = queue("again", 300_000, "100k")
    bytes_come(again)
    daemon.steer("pause", again)
    daemon.steer("cancel", again)
    wait_until(lambda: not list(daemon.files.glob(".again*")), "its part is gone", seen=daemon.names)
    daemon.steer("retry", again)
    halted = queue("halted", 200_000, "100k")
    bytes_come(halted)
    daemon.steer("pause", halted)
    daemon.steer("resume", halted)
    crowd = [nginx.file(f"cut/crowd-{number}.bin", 2000 + number) for number in range(40)]
    served |= zip(daemon.queue([one.url for one in crowd]), crowd, strict=True)
    check_files(daemon, daemon.settle(served), served)
    return served


DOUBTS: dict[str, Doubt] = {
    "all lost": disk_model.all_lost,
    "all kept": disk_model.all_kept,
    "names without bytes": disk_model.names_without_bytes,
    "bytes without names": disk_model.bytes_without_names,
}


def cuts(story: Story) -> list[tuple[int, str, int]]:
    """Return the disks to look at: a line of the record, what becomes of what is in doubt, and dice for it."""
    lines = story.record.disk.lines
    every = [(line, doubt, 0) for line in lines for doubt in DOUBTS]
    dice = random.Random(SEED)
    print(f"AUTODL_FAULT_SEED={SEED}, {len(lines)} moments")
    chosen = dice.sample(every, min(len(every), TREES // 2))
    return chosen + [(dice.choice(lines), "any of it", dice.randrange(10**9)) for _ in range(TREES - len(chosen))]


def tree_of(story: Story, line: int, doubt: str, number: int) -> Tree:
    chosen = DOUBTS.get(doubt) or disk_model.any_of_it(random.Random(number))
    return story.record.disk.after_cut(line, chosen)


def _unpack(story: Story, tree: Tree, daemon: FaultyDaemon) -> None:
    """Lay the disk out where the record was made, for a daemon with the same paths; the record's own is gone."""
    base = story.state.parent
    shutil.rmtree(base)
    for path, data in tree.files.items():
        place = base.parent / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.name.endswith(("-shm", ".sock")):
            place.write_bytes(data)
    base.mkdir(exist_ok=True)
    story.state.mkdir(exist_ok=True)
    story.state.chmod(0o700)
    daemon.state_dir = story.state
    daemon.files = Path(story.folder)


class Look:
    """Looks at one disk."""

    def __init__(self, story: Story, tree: Tree, line: int, work: Path) -> None:
        self._story = story
        self._tree = tree
        self._known, self._finished = story.record.promised(line)
        self._names = {f"{story.folder}/{one.name.rpartition('/')[2]}": one for one in story.served.values()}
        self._work = work
        self._base = str(story.state.parent.parent)

    def check(self) -> None:
        """Raises AssertionError for whatever a user would complain of."""
        for path, data in self._tree.files.items():
            one = self._names.get(self._base + path)
            if one is not None:
                assert data == one.data, f"{path} is wrong"
        rows = self._rows()
        assert self._known <= rows.keys(), f"lost: {self._known - rows.keys()}"
        for task_id, (state, dest, part, inode, size) in rows.items():
            if state == "finished" or task_id in self._finished:
                assert state == "finished", f"task {task_id} was finished, and is {state}"
                assert self._tree.files.get(self._path(dest)) == self._story.served[task_id].data, (
                    f"{dest} is not there"
                )
            elif part is not None:
                self._check_part(task_id, part, inode, size)

    def _check_part(self, task_id: int, part: str, inode: int | None, size: int | None) -> None:
        path = self._path(f"{self._story.folder}/{part}")
        data, wanted = self._tree.files.get(path), self._story.served[task_id].data
        if data is None:
            return
        if inode is not None and self._story.inodes.get(inode) is self._tree.nodes[path] and len(data) == size:
            assert data == wanted, f"{part} would be published, and is wrong"
        found = decode_slots(self._tree.files.get(path.replace(".autodl-part", ".autodl-ctl"), b""))
        if found is not None and found[0].tag.endswith(f":{task_id}") and len(data) >= found[0].end():
            for start, end in found[0].ranges:
                assert data[start:end] == wanted[start:end], f"{part}: {start}-{end} would be kept, and is wrong"

    def _path(self, path: str) -> str:
        return path.removeprefix(self._base)

    def _rows(self) -> dict[int, tuple[str, str | None, str | None, int | None, int | None]]:
        """Open the queue as the daemon does, and return its tasks."""
        state = self._work / "state"
        state.mkdir(parents=True)
        for name in ("queue.db", "queue.db-wal", "queue.db-journal"):
            data = self._tree.files.get(self._path(f"{self._story.state}/{name}"))
            if data is not None:
                (state / name).write_bytes(data)
        if not (state / "queue.db").exists():
            return {}
        connection = open_database(state / "queue.db")
        try:
            rows = connection.execute("SELECT id, state, dest, part, inode, part_size_bytes FROM task").fetchall()
        finally:
            connection.close()
        return {row[0]: row[1:] for row in rows}


@pytest.mark.timeout(900)
def test_whatever_of_the_unsynced_is_lost_nothing_promised_is(story: Story, tmp_path: Path) -> None:
    complaints = []
    for line, doubt, number in cuts(story):
        work = tmp_path / "work"
        try:
            Look(story, tree_of(story, line, doubt, number), line, work).check()
        except (AssertionError, sqlite3.Error) as error:
            complaints.append(f"after line {line}, {doubt} {number}: {str(error).splitlines()[0]}")
        shutil.rmtree(work, ignore_errors=True)
    assert complaints == [], f"{len(complaints)} disks are wrong:\n" + "\n".join(complaints[:20])


@pytest.mark.timeout(900)
def test_on_such_disks_a_daemon_goes_on_and_brings_everything_to_its_end(story: Story, make_faulty: MakeFaulty) -> None:
    dice = random.Random(SEED)
    for number in range(REVIVED):
        line, seed = dice.choice(story.record.disk.lines), dice.randrange(10**9)
        print(f"after line {line}, any of it {seed}")
        tree = tree_of(story, line, "any of it", seed)
        daemon = make_faulty(config=CONFIG, name=f"after-{number}")
        _unpack(story, tree, daemon)
        daemon.revive()
        known, _ = story.record.promised(line)
        tasks = daemon.insist(daemon.tasks)
        assert known <= {task["id"] for task in tasks}
        for task in tasks:
            if task["state"] in ("cancelled", "paused"):
                daemon.steer("retry" if task["state"] == "cancelled" else "resume", task["id"])
        settled = daemon.settle([task["id"] for task in tasks])
        for task_id, task in settled.items():
            data = Path(task["dest"]).read_bytes()
            assert (task["state"], data) == ("finished", story.served[task_id].data), (task, daemon.log_end())
        assert daemon.stop() == 0
