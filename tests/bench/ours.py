"""autodl as the bench runs it: a private daemon of its own, `autodl get` as the command, and an eye on its workers.

Runs as: the bench.  Talks to: the daemon that it starts, /proc.
Invariants: a case has a fresh daemon, so what is said of its workers is of that case. While a command is timed, /proc
is looked at a few times a second and no more. The kernel keeps the peak (VmHWM), so a look that comes late misses
nothing but a worker that has ended since the look before.
Known limits: resident pages that are shared with the forkserver are counted in full.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from peers import Program, program
from support.daemon import AUTODL, Daemon
from support.processes import Gone

_LOOK_EVERY_S = 0.25
_IDS_A_COMMAND = 5000
_COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
"""An installed autodl is compiled: Python keeps what it makes of the sources here, too, whatever the caller's says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handles:
    """What the workers that live have open: the most of any one; files and folders of tasks in all of them."""

    workers: int
    most_fds: int
    most_inet_sockets: int
    task_files: int
    task_folders: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """What autodl costs besides the time of a command.

    `first_get_s` is the `get` of one byte that also starts a worker, `fixed_cost_s` the same once more.
    """

    daemon_start_s: float
    first_get_s: float
    fixed_cost_s: float
    worker_peak_rss_mib: float | None
    before: Handles
    after: Handles


class Ours:
    """A running private daemon."""

    def __init__(self, folder: Path, saved: Path, *, durable: bool, byte_url: str) -> None:
        self.saved = saved
        folder.mkdir(parents=True)
        config = f"[transfer]\ndurable = {str(durable).lower()}\n"
        self._daemon = Daemon(folder, config=config, arguments=("--private",))
        self._peaks_mib: dict[int, float] = {}
        began_mono = time.monotonic()
        self._daemon.start()
        self._daemon_start_s = time.monotonic() - began_mono
        self._first_get_s = self._get_byte(byte_url)
        self._manager = self._daemon.family().manager
        self._fixed_cost_s = self._get_byte(byte_url)
        self._before = self._after = self._handles()

    def program(self, *arguments: str, connections: int | None = None) -> Program:
        """Return the row of `autodl get`."""
        more = () if connections is None else ("--connections", str(connections))
        command = (*AUTODL, "get", "-q", "--socket", str(self._daemon.socket), *more, *arguments)
        return program("autodl" if connections is None else f"autodl -x{connections}", "autodl", command)

    def environment(self) -> dict[str, str]:
        """Return the environment that all programs of the case run in; no configuration of the machine's is in it."""
        found = self._daemon.environment(**_COMPILED)
        return {name: value for name, value in found.items() if not name.lower().endswith("_proxy")}

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Keep an eye on the workers' memory."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(_LOOK_EVERY_S):
                self._look()

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            self._look()
            self._after = self._handles()

    def upkeep(self) -> Upkeep:
        """Return what was seen since the start."""
        return Upkeep(
            daemon_start_s=self._daemon_start_s,
            first_get_s=self._first_get_s,
            fixed_cost_s=self._fixed_cost_s,
            worker_peak_rss_mib=max(self._peaks_mib.values(), default=None),
            before=self._before,
            after=self._after,
        )

    def give_up(self) -> None:
        """Drop what a command that was ended has left in the queue."""
        left = [str(task["id"]) for task in self._daemon.tasks() if task["finished_at"] is None]
        for first in range(0, len(left), _IDS_A_COMMAND):
            self._daemon.autodl("cancel", *left[first : first + _IDS_A_COMMAND])

    def end(self) -> None:
        """End the daemon and all that belongs to it."""
        self._daemon.end_all()

    def _get_byte(self, url: str) -> float:
        began_mono = time.monotonic()
        done = self._daemon.autodl("get", "-q", url, cwd=self._daemon.files, env=_COMPILED)
        assert done.returncode == 0, done.stderr
        return time.monotonic() - began_mono

    def _workers(self) -> list[psutil.Process]:
        forkserver = self._daemon.family().forkserver if self._manager is None else self._manager.parent()
        if forkserver is None:
            return []
        with contextlib.suppress(*Gone):
            return [child for child in forkserver.children() if child != self._manager]
        return []

    def _handles(self) -> Handles:
        """Count what the workers have open now."""
        fds, sockets, files, folders = [0], [0], 0, 0
        workers = self._workers()
        for worker in workers:
            with contextlib.suppress(*Gone, FileNotFoundError):
                fds.append(worker.num_fds())
                sockets.append(len(worker.net_connections("inet")))
                for entry in Path(f"/proc/{worker.pid}/fd").iterdir():
                    # Of what is deleted by now, the link still says where it was.
                    if os.readlink(entry).startswith(str(self.saved)):
                        folders += entry.is_dir()
                        files += not entry.is_dir()
        return Handles(
            workers=len(workers),
            most_fds=max(fds),
            most_inet_sockets=max(sockets),
            task_files=files,
            task_folders=folders,
        )

    def _look(self) -> None:
        for worker in self._workers():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{worker.pid}/status").read_text()
                for line in status.splitlines():
                    if line.startswith("VmHWM:"):
                        peak_mib = int(line.split()[1]) / 1024
                        self._peaks_mib[worker.pid] = max(peak_mib, self._peaks_mib.get(worker.pid, 0.0))
