"""Reserving space: blocks and nothing else, and a full disk is the only thing that is said."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from autodl_lib.worker.files import preallocation
from autodl_lib.worker.files.preallocation import give_back, preallocate

MIB = 1024 * 1024


@pytest.fixture
def fd() -> Iterator[int]:
    """A file of five bytes on a disk: /tmp may be in memory."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="autodl-t-"))
    fd = os.open(folder / "part", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"bytes")
    yield fd
    os.close(fd)
    shutil.rmtree(folder)


def failing(number: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make fallocate(2) fail once with an errno; returns a list that grows with every call."""
    calls: list[int] = []

    def fallocate(fd: int, mode: int, offset: int, length: int) -> int:
        calls.append(mode)
        preallocation.ctypes.set_errno(number)
        return -1 if len(calls) == 1 else 0

    monkeypatch.setattr(preallocation, "_fallocate", fallocate)
    return calls


def test_blocks_are_reserved_and_the_file_stays_as_it_was(fd: int) -> None:
    preallocate(fd, 0, 8 * MIB)
    assert os.fstat(fd).st_blocks * 512 >= 8 * MIB
    assert os.fstat(fd).st_size == 5
    assert os.pread(fd, MIB, 0) == b"bytes"
    preallocate(fd, 32 * MIB, MIB)
    assert 9 * MIB <= os.fstat(fd).st_blocks * 512 < 32 * MIB
    assert os.fstat(fd).st_size == 5


def test_what_is_written_later_is_there(fd: int) -> None:
    preallocate(fd, 0, MIB)
    os.pwrite(fd, b"end", MIB - 3)
    assert os.pread(fd, 2 * MIB, 0) == b"bytes" + bytes(MIB - 8) + b"end"


def test_what_was_not_used_is_given_back(fd: int) -> None:
    preallocate(fd, 0, 8 * MIB)
    give_back(fd)
    assert os.fstat(fd).st_blocks * 512 < MIB
    assert os.pread(fd, MIB, 0) == b"bytes"


def test_a_disk_that_is_too_small_is_said_and_not_filled(fd: int) -> None:
    before = os.fstat(fd).st_blocks
    status = os.fstatvfs(fd)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        preallocate(fd, 0, status.f_blocks * status.f_frsize)
    assert os.fstat(fd).st_blocks == before


def test_what_is_reserved_already_needs_no_room(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    preallocate(fd, 0, 8 * MIB)
    monkeypatch.setattr(preallocation, "_free_bytes", lambda fd: 0)
    preallocate(fd, 0, 8 * MIB)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        preallocate(fd, 0, 9 * MIB)


@pytest.mark.parametrize(("offset", "length"), [(2**63 - 5, 10), (0, 2**63), (2**70, 2**70)])
def test_a_size_beyond_all_files_is_said(fd: int, offset: int, length: int) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        preallocate(fd, offset, length)


@pytest.mark.parametrize("length", [0, -1])
def test_nothing_is_reserved_for_nothing(fd: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = failing(errno.EINVAL, monkeypatch)
    preallocate(fd, 0, length)
    assert calls == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_lack_of_room_is_said(fd: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(number, monkeypatch)
    with pytest.raises(OSError, match=os.strerror(number)):
        preallocate(fd, 0, MIB)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ENODEV])
def test_what_a_file_system_can_not_do_is_left_to_the_writes(
    fd: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failing(number, monkeypatch) == []
    preallocate(fd, 0, MIB)
    assert os.fstat(fd).st_size == 5


def test_a_signal_does_not_stop_it(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = failing(errno.EINTR, monkeypatch)
    preallocate(fd, 0, MIB)
    assert calls == [1, 1]


def test_memory_is_never_reserved() -> None:
    fd = os.memfd_create("part")
    preallocate(fd, 0, MIB)
    assert os.fstat(fd).st_blocks == 0
    os.close(fd)
