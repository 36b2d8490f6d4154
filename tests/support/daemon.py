"""A real daemon in a folder of its own, and the real command line that talks to it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from support.processes import MARK, Family, family, marked
from support.rpc import Wire
from support.waiting import PATIENCE_S, NeverCame, wait_until

REPO = Path(__file__).resolve().parents[2]
AUTODL = [sys.executable, str(REPO / "autodl.py")]

QUICK = """
[transfer]
min_free_bytes = 0
connect_timeout_s = 5
connections = 1
[retry]
first_delay_s = 0.1
max_delay_s = 0.5
"""
"""Settings under which a test need not wait for a second try."""


def _is_of_the_machine(key: str) -> bool:
    return key.startswith(("AUTODL_", "XDG_")) or key.lower().endswith("_proxy")


SETTLED = frozenset({"finished", "failed", "cancelled", "cleared"})

Task = dict[str, Any]


class Daemon:
    """One queue, and the daemons that serve it, one after the other."""

    def __init__(self, folder: Path, *, config: str = QUICK, arguments: Iterable[str] = ()) -> None:
        self.folder = folder
        self.socket = folder / "d.sock"
        self.state_dir = folder / "state"
        self.config = folder / "autodl.toml"
        self.log_path = folder / "daemon.log"
        self.home = folder / "home"
        self.files = folder / "files"
        self.mark = secrets.token_hex(8)
        self.arguments = tuple(arguments)
        self.config.write_text(config)
        self.home.mkdir(exist_ok=True)
        self.files.mkdir(exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None

    # --- life ---

    def start(self) -> Daemon:
        """Start it and return when it greets."""
        self.launch()
        wait_until(self._greets, "the daemon greets", seen=self.log_end)
        return self

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it without waiting."""
        command = [*AUTODL, "daemon", *self.arguments]
        command += ["--socket", str(self.socket), "--state-dir", str(self.state_dir), "--config", str(self.config)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(), cwd="/"
            )
        return self.process

    def stop(self) -> int:
        """Ask it to end, and return its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """End it without notice."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def end_all(self) -> list[int]:
        """At the end of a test: stop what runs; return what had to be killed after that."""
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
        try:
            wait_until(lambda: not marked(self.mark), "all processes end", timeout_s=20)
        except NeverCame:
            orphans = marked(self.mark)
            for orphan in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(orphan.pid, signal.SIGKILL)
            return [orphan.pid for orphan in orphans]
        return []

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self.process is not None
        return self.process.pid

    def family(self) -> Family:
        """Return its processes now."""
        return family(self.pid)

    def log(self) -> str:
        """Return what all its daemons have logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_end(self) -> str:
        """Return the end of the log, for a failure's message."""
        return self.log()[-4000:]

    def defects(self) -> list[str]:
        """Return the lines of the log that no daemon should write."""
        signs = r"Traceback(?:.*\n){0,30}|internal error|never awaited|broke the protocol"
        found = re.findall(rf"(?m)^.*(?:{signs}).*$", self.log())
        return found[:5]

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of daemon and clients: nothing of the machine's own autodl is in it."""
        kept = {key: value for key, value in os.environ.items() if not _is_of_the_machine(key)}
        return {**kept, "HOME": str(self.home), MARK: self.mark, **more}

    # --- clients ---

    def autodl(
        self, *arguments: str, cwd: Path | None = None, stdin: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end."""
        return subprocess.run(
            [*AUTODL, *arguments],
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            env=self.environment(AUTODL_SOCKET=str(self.socket), **(env or {})),
            cwd=cwd or self.folder,
            timeout=120,
        )

    def ok(self, *arguments: str, cwd: Path | None = None, stdin: str | None = None) -> str:
        """Run the command line, which must succeed and complain of nothing; return its output."""
        done = self.autodl(*arguments, cwd=cwd, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, ""), (arguments, done)
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Run the command line with --json and return its document."""
        return json.loads(self.ok(*arguments, "--json"))

    def add(self, *arguments: str) -> list[int]:
        """Queue URLs to `files`, unless the arguments name another folder."""
        where = [] if any(word in ("-d", "--dir") for word in arguments) else ["-d", str(self.files)]
        ids = self.json("add", *arguments, *where)["ids"]
        assert isinstance(ids, list)
        return ids

    def add_one(self, *arguments: str) -> int:
        """Queue one URL."""
        [task_id] = self.add(*arguments)
        return task_id

    def connect(self) -> Wire:
        """Connect without the product's client."""
        return Wire(self.socket)

    def status(self, task_id: int) -> Task:
        """Return a task, asked over the raw wire."""
        with self.connect() as wire:
            task = wire.call("status", id=task_id)
            assert isinstance(task, dict)
            return task

    def tasks(self) -> list[Task]:
        """Return all tasks, asked over the raw wire."""
        found: list[Task] = []
        with self.connect() as wire:
            after: int | None = 0
            while after is not None:
                page = wire.call("list", after=after, limit=5000)
                found += page["tasks"]
                after = page["next"]
        return found

    def await_task(self, task_id: int, what: str, condition: Callable[[Task], object]) -> Task:
        """Follow a task until it is as wanted; one that settles otherwise is said so at once."""
        with self.connect() as wire:
            wire.call("watch", ids=[task_id])
            for task in wire.tasks():
                if condition(task):
                    return task
                if task["state"] in SETTLED:
                    raise AssertionError(f"task {task_id} is not {what} but {task}\n{self.log_end()}")
        raise AssertionError("unreachable")

    def await_state(self, task_id: int, *states: str) -> Task:
        """Follow a task until it is in one of these states."""
        return self.await_task(task_id, " or ".join(states), lambda task: task["state"] in states)

    def await_bytes(self, task_id: int, at_least: int = 1) -> Task:
        """Follow a task until bytes of it have arrived."""
        return self.await_task(
            task_id,
            "under way",
            lambda task: task["state"] == "downloading" and task["bytes_done"] >= at_least,
        )

    def await_settled(self, ids: Iterable[int]) -> dict[int, Task]:
        """Follow tasks until all are settled, and return them."""
        left = set(ids)
        settled: dict[int, Task] = {}
        with self.connect() as wire:
            wire.call("watch", ids=sorted(left), progress=False)
            for task in wire.tasks():
                if task["state"] in SETTLED:
                    settled[task["id"]] = task
                    left.discard(task["id"])
                if not left:
                    return settled
        raise AssertionError("unreachable")

    def hidden_files(self, folder: Path | None = None) -> list[str]:
        """Return part and control files."""
        return sorted(entry.name for entry in (folder or self.files).rglob(".*"))

    def names(self, folder: Path | None = None) -> list[str]:
        """Return the names in the folder, hidden ones too."""
        return sorted(entry.name for entry in (folder or self.files).iterdir())

    def _greets(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the daemon ended with {self.process.returncode}: {self.log_end()}")
        try:
            with self.connect():
                return True
        except (FileNotFoundError, ConnectionError):
            return False


MakeDaemon = Callable[..., Daemon]
"""The fixture `make_daemon`: arguments of the daemon, and by name `config` and a folder's `name`."""
