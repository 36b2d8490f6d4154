"""A daemon that can be made to fail: armed crash points, and a client that starts it again as often as it dies."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterable
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TypeVar

from support.daemon import SETTLED, Daemon, Task
from support.nginx import Served
from support.rpc import Refused
from support.waiting import PATIENCE_S, NeverCame, wait_until

HOOKS = Path(__file__).with_name("fault_hooks")
HIT = 255

T = TypeVar("T")


class Faults:
    """The folder that tells a daemon's processes what is to happen (fault_hooks/sitecustomize.py)."""

    def __init__(self, folder: Path, points: Iterable[str] = ()) -> None:
        folder.mkdir()
        self.folder = folder
        self._points = sorted(set(points))
        (folder / "points").write_text("\n".join(self._points))
        self._arms = folder / "arms"
        self._arms.write_bytes(bytes(2 * len(self._points)))

    def environment(self) -> dict[str, str]:
        """Return what brings the hooks into every process."""
        return {"PYTHONPATH": str(HOOKS), "AUTODL_TEST_FAULTS": str(self.folder)}

    def arm(self, moment_and_point: object, passes: int = 0) -> None:
        """Have the process that comes to `before POINT` or `after POINT` next, but for some passes, kill itself."""
        self._write(self._slot(moment_and_point), 1 + passes)

    def disarm(self) -> None:
        """Let nothing happen any more that has not happened yet."""
        for slot in range(2 * len(self._points)):
            self._write(slot, 0)

    def was_hit(self, moment_and_point: object) -> bool:
        """Return whether a process has died there since it was armed."""
        return self._arms.read_bytes()[self._slot(moment_and_point)] == HIT

    def _slot(self, moment_and_point: object) -> int:
        moment, _, point = str(moment_and_point).partition(" ")
        return 2 * self._points.index(point) + ("before", "after").index(moment)

    def _write(self, slot: int, value: int) -> None:
        with self._arms.open("r+b") as arms:
            arms.seek(slot)
            arms.write(bytes([value]))

    def set_clock(self, wrong_by_s: float) -> None:
        """Make the clock wrong from now on."""
        fresh = self.folder / "fresh-clock"
        fresh.write_text(str(wrong_by_s))
        fresh.chmod(0o644)
        fresh.rename(self.folder / "clock")


class FaultyDaemon(Daemon):
    """A daemon with faults, whose client survives them."""

    def __init__(self, folder: Path, *, config: str, points: Iterable[str] = ()) -> None:
        super().__init__(folder, config=config)
        self.faults = Faults(folder / "faults", points)
        self.deaths = 0

    def environment(self, **more: str) -> dict[str, str]:
        return super().environment(**{**self.faults.environment(), **more})

    def revive(self) -> None:
        """Start it again if it has died, and as often as it dies at its start."""
        while self.process is None or self.process.poll() is not None:
            self.deaths += self.process is not None
            with contextlib.suppress(DiedAtStart):
                self.launch()
                wait_until(self._has_begun, "the daemon greets or dies", seen=self.log_end)

    def _has_begun(self) -> bool:
        assert self.process is not None
        status = self.process.poll()
        if status == -9:
            raise DiedAtStart
        assert status is None, f"the daemon ended with {status}: {self.log_end()}"
        return self._greets()

    def insist(self, work: Callable[[], T]) -> T:
        """Do something that may be done twice; again and again when the daemon dies in the middle."""
        while True:
            self.revive()
            try:
                return work()
            except (ConnectionError, FileNotFoundError, JSONDecodeError):  # the last line may be half a one
                self._await_death()

    def _await_death(self) -> None:
        """A connection broke: the daemon must be about to be gone."""
        assert self.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.5)

    def call(self, method: str, **params: Any) -> Any:
        """Call a method that may be called twice."""

        def work() -> Any:
            with self.connect() as wire:
                return wire.call(method, **params)

        return self.insist(work)

    def queue(self, urls: list[str], **params: Any) -> list[int]:
        """Queue URLs, each once: after a death it is looked up whether they are in the queue."""

        def work() -> list[int]:
            known = {task["url"]: task["id"] for task in self.tasks()}
            if all(url in known for url in urls):
                return [known[url] for url in urls]
            assert not any(url in known for url in urls), "a part of a request is queued"
            with self.connect() as wire:
                ids = wire.call("add", urls=urls, dir=str(self.files), **params)["ids"]
            return list(ids)

        return self.insist(work)

    def steer(self, method: str, task_id: int) -> None:
        """Pause, resume or cancel; a state in which that can't be is what an earlier call has come to."""
        with contextlib.suppress(Refused):
            self.call(method, ids=[task_id])

    def wait_for(self, task_id: int, condition: Callable[[Task], bool], what: str) -> Task:
        """Ask until a task is as wanted."""

        def look() -> Task | None:
            task = self.call("status", id=task_id)
            return task if condition(task) else None

        try:
            found = wait_until(look, what)
        except NeverCame as error:
            raise NeverCame(f"{error}: {self.call('status', id=task_id)} {self.log_end()}") from None
        assert found is not None
        return found

    def settle(self, ids: Iterable[int], *, timeout_s: float = PATIENCE_S) -> dict[int, Task]:
        """Wait until these tasks are settled, over any number of deaths."""
        wanted = set(ids)
        if not wanted:
            return {}

        def look() -> dict[int, Task] | None:
            tasks = {task["id"]: task for task in self.insist(self.tasks) if task["id"] in wanted}
            assert tasks.keys() == wanted, f"acknowledged, and gone: {wanted - tasks.keys()}"
            return tasks if all(task["state"] in SETTLED for task in tasks.values()) else None

        def seen() -> object:
            return [task for task in self.insist(self.tasks) if task["state"] not in SETTLED], self.log_end()

        found = wait_until(look, "all tasks are settled", timeout_s=timeout_s, seen=seen)
        assert found is not None
        return found


class DiedAtStart(Exception):
    """It was killed before it greeted."""


def digest(path: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_files(daemon: Daemon, tasks: dict[int, Task], served: dict[int, Served], allowed: Iterable[str] = ()) -> None:
    """Every task is finished, under its own name, with its own bytes; nothing else but `allowed` is in the folder."""
    for task_id, one in served.items():
        task, name = tasks[task_id], one.name.rpartition("/")[2]
        assert task["state"] == "finished", (task, daemon.log_end())
        assert task["dest"] == str(daemon.files / name), task
        assert digest(daemon.files / name) == one.sha256, task
    names = {one.name.rpartition("/")[2] for one in served.values()}

    def others() -> set[str]:
        return set(daemon.names()) - names - set(allowed)

    wait_until(lambda: not others(), "nothing else is there", seen=others)
    assert names <= set(daemon.names())


def open_files_of(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
