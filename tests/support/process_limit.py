"""A bound on how many processes and threads some processes may be together, as a container or a service unit has it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

_ROOTS = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))
"""Of cgroup v1 with its controller, else of v2."""


class ProcessLimit:
    """A control group."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def close(self) -> None:
        """Allow no more than there are."""
        (self._folder / "pids.max").write_text((self._folder / "pids.current").read_text())

    def open(self) -> None:
        """Allow any number."""
        (self._folder / "pids.max").write_text("max")


@contextlib.contextmanager
def process_limit(pids: Iterable[int]) -> Iterator[ProcessLimit]:
    """Take processes into a group of their own, without a limit at first; they must have ended at the end."""
    root = next(root for root in _ROOTS if (root / "cgroup.procs").exists())
    if (root / "cgroup.controllers").exists():
        (root / "cgroup.subtree_control").write_text("+pids")
    folder = root / f"autodl-test-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        for pid in pids:
            (folder / "cgroup.procs").write_text(str(pid))
        yield ProcessLimit(folder)
    finally:
        (folder / "pids.max").write_text("max")
        for pid in (folder / "cgroup.procs").read_text().split():
            (root / "cgroup.procs").write_text(pid)
        folder.rmdir()
