"""A disk of its own for a test: a file system in a file, which can be frozen, made read-only, and taken away."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path


class LoopDisk:
    """A mounted ext4."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._is_frozen = False

    def freeze(self) -> None:
        """Have everybody who writes wait in the kernel, where no signal reaches them."""
        _run("fsfreeze", "--freeze", str(self.folder))
        self._is_frozen = True

    def thaw(self) -> None:
        """Let them go on."""
        if self._is_frozen:
            _run("fsfreeze", "--unfreeze", str(self.folder))
            self._is_frozen = False

    def remount(self, options: str) -> None:
        """Change how it is mounted: `ro`, `rw`."""
        _run("mount", "-o", f"remount,{options}", str(self.folder))


@contextlib.contextmanager
def loop_disk(image: Path, folder: Path, size_bytes: int = 16 * 1024 * 1024) -> Iterator[LoopDisk]:
    """Make a disk in the file `image` and mount it."""
    with image.open("wb") as file:
        file.truncate(size_bytes)
    _run("mkfs.ext4", "-q", "-F", str(image))
    folder.mkdir(exist_ok=True)
    _run("mount", "-o", "loop", str(image), str(folder))
    disk = LoopDisk(folder)
    try:
        yield disk
    finally:
        disk.thaw()
        _run("umount", "--lazy", str(folder))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stderr)
