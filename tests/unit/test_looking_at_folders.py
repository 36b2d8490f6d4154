"""A folder is looked at once for many small files, and again where that may matter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autodl_lib.worker.files.folder import Folders

GIB = 1 << 30


class Clock:
    """time.monotonic that stands still."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("autodl_lib.worker.files.folder.time.monotonic", clock)
    return clock


def test_an_order_that_comes_after_a_folder_was_replaced_is_for_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "f"
    folders = Folders()
    old = folders.open(str(path))
    path.rename(tmp_path / "moved")
    path.mkdir()
    folders.look_again()
    assert folders.open(str(path)).key != old.key


def test_another_folder_is_never_taken_for_the_last_one(tmp_path: Path) -> None:
    folders = Folders()
    assert folders.open(str(tmp_path / "a")).key != folders.open(str(tmp_path / "b")).key


def statvfs_of(free_bytes: int) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, 1 << 40, free_bytes // 4096, free_bytes // 4096, 1, 1, 1, 0, 255))


def test_much_free_space_is_believed_for_a_moment_and_little_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    folder = Folders().open(str(tmp_path))
    assert not folder.had_plenty(0), "nobody has looked"
    monkeypatch.setattr(os, "statvfs", lambda _: statvfs_of(3 * GIB))
    assert folder.free_bytes() == 3 * GIB
    assert folder.had_plenty(GIB)
    assert folder.had_plenty(GIB)
    assert not folder.had_plenty(1), "what was promised is taken"
    folder.free_bytes()
    clock.now += 1
    assert not folder.had_plenty(1), "that was long ago"
    monkeypatch.setattr(os, "statvfs", lambda _: statvfs_of(GIB - 4096))
    folder.free_bytes()
    assert not folder.had_plenty(0)
