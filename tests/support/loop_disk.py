"""A disk of its own for a test: a file system in a file, which can be frozen, made read-only, and taken away."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from support.waiting import wait_until


class LoopDisk:
    """A mounted ext4."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.folder = folder
        self._image = image
        self._is_frozen = False

    def mount(self) -> None:
        """Put it there."""
        _run("mount", "-o", "loop", str(self._image), str(self.folder))

    def unmount(self) -> None:
        """Take it away from under whoever uses it."""
        _run("umount", "--lazy", str(self.folder))

    def freeze(self) -> None:
        """Have everybody who writes wait in the kernel, where no signal reaches them."""
        _run("fsfreeze", "--freeze", str(self.folder))
        self._is_frozen = True

    def thaw(self) -> None:
        """Let them go on."""
        if self._is_frozen:
            _run("fsfreeze", "--unfreeze", str(self.folder))
            self._is_frozen = False

    def abort(self) -> None:
        """Have the kernel find an error and let nobody write any more, as it does when a real disk fails."""
        _run("mount", "-o", "remount,abort", str(self.folder))

    def repair(self) -> None:
        """Check it, and mount it again."""
        self.unmount()
        wait_until(lambda: not _loops_of(self._image), "nobody uses it")
        _run("e2fsck", "-p", "-f", str(self._image), ok=(0, 1))
        self.mount()


@contextlib.contextmanager
def loop_disk(image: Path, folder: Path, size_bytes: int = 16 * 1024 * 1024) -> Iterator[LoopDisk]:
    """Make a disk in the file `image` and mount it."""
    with image.open("wb") as file:
        file.truncate(size_bytes)
    _run("mkfs.ext4", "-q", "-F", str(image))
    folder.mkdir(exist_ok=True)
    # A machine that another test boots meanwhile has a copy of each mount, and keeps it in use until it ends.
    # Below a shared one, what is unmounted here is unmounted there.
    _run("mount", "--bind", str(folder), str(folder))
    _run("mount", "--make-shared", str(folder))
    disk = LoopDisk(image, folder)
    try:
        disk.mount()
        try:
            yield disk
        finally:
            disk.thaw()
            disk.unmount()
    finally:
        _run("umount", "--lazy", str(folder))


def _loops_of(image: Path) -> str:
    return subprocess.run(["losetup", "-j", str(image)], capture_output=True, text=True, check=True).stdout


def _run(*command: str, ok: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in ok, (command, done.stdout, done.stderr)
