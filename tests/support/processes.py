"""The processes of a daemon, told apart: forkserver, manager (report queue), workers."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import psutil

MARK = "AUTODL_TEST_MARK"
"""An environment variable that every process of a test's daemon carries from its start, orphans too."""

Gone = (psutil.NoSuchProcess, psutil.ZombieProcess)


@dataclass(frozen=True, slots=True)
class Family:
    """What lives below a supervisor at one moment."""

    forkserver: psutil.Process | None
    manager: psutil.Process | None
    workers: tuple[psutil.Process, ...]


def family(supervisor_pid: int) -> Family:
    """Look at a supervisor's processes."""
    forkserver, manager, workers = None, None, []
    with contextlib.suppress(*Gone):
        for child in psutil.Process(supervisor_pid).children():
            with contextlib.suppress(*Gone):
                if any("forkserver" in word for word in child.cmdline()):
                    forkserver = child
    if forkserver is not None:
        with contextlib.suppress(*Gone):
            for child in forkserver.children():
                with contextlib.suppress(*Gone):
                    if child.status() == psutil.STATUS_ZOMBIE:
                        continue
                    if _listens_for_reports(child):
                        manager = child
                    else:
                        workers.append(child)
    # One that does not listen yet looks like a worker; there are none before it does.
    return Family(forkserver, manager, tuple(workers) if manager is not None else ())


def marked(mark: str) -> list[psutil.Process]:
    """Return every process that carries the mark, zombies left out."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _listens_for_reports(process: psutil.Process) -> bool:
    return any("reports-" in (link.laddr or "") for link in process.net_connections("unix"))


def kill(*processes: psutil.Process) -> None:
    """Kill processes of which some may have ended by themselves, or because of others, since they were looked up."""
    for process in processes:
        with contextlib.suppress(*Gone):
            process.kill()
