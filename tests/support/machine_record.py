"""A daemon's whole run, recorded call by call: what it put on disk, and what its clients were told and when."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.daemon import AUTODL
from support.disk_model import Disk
from support.faulty import FaultyDaemon
from support.strace_reader import RECORDING, Call, read_calls


class RecordedDaemon(FaultyDaemon):
    """A daemon that runs under strace from its first instruction, with all its processes."""

    def __init__(self, folder: Path, *, config: str) -> None:
        super().__init__(folder, config=config)
        self.record = folder.parent / f"{folder.name}.strace"

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it; strace steps aside, so that the process is the daemon's own."""
        command = ["strace", "-D", "-f", *RECORDING, "-A", "-o", str(self.record), *AUTODL, "daemon"]
        command += ["--socket", str(self.socket), "--state-dir", str(self.state_dir), "--config", str(self.config)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(), cwd="/"
            )
        return self.process


@dataclass(frozen=True, slots=True)
class Told:
    """What a client was told, at a line of the record."""

    at: int
    task_id: int
    state: str | None
    """None: that the task is queued."""


@dataclass(slots=True)
class Record:
    """All of it."""

    disk: Disk
    told: list[Told] = field(default_factory=list)

    def promised(self, line: int) -> tuple[set[int], set[int]]:
        """Return the tasks that clients knew of at a line, and those that they knew to be finished."""
        before = [told for told in self.told if told.at <= line]
        return {told.task_id for told in before}, {told.task_id for told in before if told.state == "finished"}


def read_record(path: Path, root: Path, existing: Iterable[str]) -> Record:
    """Read a record; what lies below `root` is the disk, whose `existing` folders were there before."""
    record = Record(Disk(str(root), existing))
    for call in read_calls(path):
        if call.name == "sendto":
            record.told += _told(call)
        else:
            record.disk.take(call)
    return record


def _told(call: Call) -> Iterator[Told]:
    for line in b"".join(call.texts[:1]).splitlines():
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict):
            yield from _told_in(call.began, document)


def _told_in(at: int, document: dict[str, Any]) -> Iterator[Told]:
    result = document.get("result", document.get("params"))
    if not isinstance(result, dict):
        return
    for task_id in result.get("ids", ()):
        yield Told(at, task_id, None)
    for task in [*result.get("tasks", ()), result]:
        if "state" in task and "id" in task:
            yield Told(at, task["id"], task["state"])
