"""Parts that other programs left: how much of one is believed, copying it, and what is refused."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_lib.contract.failures import FailureCode
from autodl_lib.worker.files import foreign_part
from autodl_lib.worker.files.foreign_part import (
    OVERLAP_BYTES,
    ForeignPart,
    copy_into,
    may_be_older_than,
    open_foreign_part,
    overlap,
    parse_aria2_control,
)
from autodl_lib.worker.network.verdicts import TaskFailed

MIB = 1024 * 1024
CONTENT = bytes(range(1, 256)) * 12000
NOON = "Wed, 01 May 2024 12:00:00 GMT"
NOON_AT = 1714564800

OpenPart = Callable[[Path], ForeignPart]

ARIA2_ONE_CONNECTION = bytes.fromhex(
    "00010000000000000000001000000000000000a00c24000000000000000000000002f0000000000100000004001000000000"
    "0008ffffffffffffff80"
)
ARIA2_TWO_CONNECTIONS = bytes.fromhex(
    "00010000000000000000001000000000000000a00c24000000000000000000000002f3e00000000200000004001000000000"
    "0008ffffffffffffff00000000050010000000000008fffffffffffff800"
)
"""As aria2 1.36 left them: of 10,488,868 bytes in pieces of 1 MiB, 4 are there, or 4 and others after a gap."""


@pytest.fixture
def opened() -> Iterator[OpenPart]:
    """Opens parts, and closes them at the end."""
    parts: list[ForeignPart] = []

    def open_part(path: Path) -> ForeignPart:
        parts.append(open_foreign_part(str(path)))
        return parts[-1]

    yield open_part
    for part in parts:
        part.close()


def control(bits: str, total: int, piece: int = MIB, order: str = ">", info_hash: bytes = b"") -> bytes:
    """Make a control file of aria2; `bits` has a 1 for each complete piece."""
    bitfield = int(bits.ljust(-(-len(bits) // 8) * 8, "0") or "0", 2).to_bytes(-(-len(bits) // 8), "big")
    version = struct.pack(f"{order}H", 1 if order == ">" else 0)
    head = struct.pack(f"{order}4sI", b"\0\0\0\0", len(info_hash)) + info_hash
    return version + head + struct.pack(f"{order}IQQI", piece, total, 0, len(bitfield)) + bitfield + bytes(4)


def save(path: Path, content: bytes, aria2: bytes | None = None) -> Path:
    """Write a part, and a control file beside it."""
    path.write_bytes(content)
    if aria2 is not None:
        path.with_name(path.name + ".aria2").write_bytes(aria2)
    return path


def test_a_part_of_curl_or_wget_is_believed_to_its_end(tmp_path: Path, opened: OpenPart) -> None:
    part = opened(save(tmp_path / "f", CONTENT))
    assert (part.good_bytes, part.aria2_total) == (len(CONTENT), None)
    assert part.mtime == (tmp_path / "f").stat().st_mtime


def test_a_part_may_be_named_by_a_symlink_and_from_the_home_folder(
    tmp_path: Path, opened: OpenPart, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "f", CONTENT)
    (tmp_path / "link").symlink_to("f")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert opened(Path("~/link")).good_bytes == len(CONTENT)


def test_nothing_after_a_hole_is_believed(tmp_path: Path, opened: OpenPart) -> None:
    path = save(tmp_path / "f", CONTENT[:MIB])
    with path.open("r+b") as file:
        file.seek(8 * MIB)
        file.write(CONTENT)
    assert opened(path).good_bytes == MIB


@pytest.mark.parametrize("zeros", [1, 1000, 3 * MIB])
def test_zeros_at_the_end_are_not_believed(tmp_path: Path, opened: OpenPart, zeros: int) -> None:
    part = opened(save(tmp_path / "f", CONTENT + b"\0" + CONTENT + bytes(zeros)))
    assert part.good_bytes == 2 * len(CONTENT) + 1


@pytest.mark.parametrize("content", [b"", bytes(1000), bytes(2 * MIB)])
def test_nothing_is_believed_of_a_file_without_bytes(tmp_path: Path, opened: OpenPart, content: bytes) -> None:
    part = opened(save(tmp_path / "f", content))
    assert part.good_bytes == 0
    assert overlap(part) == (0, b"")
    fd = os.memfd_create("part")
    assert copy_into(fd, part) == 0
    os.close(fd)


@pytest.mark.parametrize("left", [ARIA2_ONE_CONNECTION, ARIA2_TWO_CONNECTIONS])
def test_what_aria2_wrote_is_understood(tmp_path: Path, opened: OpenPart, left: bytes) -> None:
    part = opened(save(tmp_path / "f", b"x" * 10488868, left))
    assert (part.good_bytes, part.aria2_total) == (4 * MIB, 10488868)


@pytest.mark.parametrize(
    ("bits", "good_bytes"),
    [("000", 0), ("100", MIB), ("101", MIB), ("011", 0), ("110", 2 * MIB), ("111", len(CONTENT))],
)
@pytest.mark.parametrize("order", [">", "="])
def test_of_a_part_of_aria2_the_first_complete_pieces_are_believed(
    tmp_path: Path, opened: OpenPart, bits: str, good_bytes: int, order: str
) -> None:
    part = opened(save(tmp_path / "f", CONTENT, control(bits, len(CONTENT), order=order)))
    assert (part.good_bytes, part.aria2_total) == (good_bytes, len(CONTENT))


def test_aria2_is_not_believed_more_than_the_file_holds(tmp_path: Path, opened: OpenPart) -> None:
    part = opened(save(tmp_path / "f", CONTENT[: MIB + 5], control("111", len(CONTENT))))
    assert part.good_bytes == MIB + 5
    path = save(tmp_path / "g", CONTENT[:MIB], control("111", len(CONTENT)))
    os.truncate(path, len(CONTENT))
    assert opened(path).good_bytes == MIB


def test_zeros_that_aria2_calls_complete_are_believed(tmp_path: Path, opened: OpenPart) -> None:
    assert opened(save(tmp_path / "f", bytes(2 * MIB), control("10", 2 * MIB))).good_bytes == MIB


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"\0\1",
        b"\0\2" + control("111", len(CONTENT))[2:],
        control("111", len(CONTENT))[:-5],
        control("111", len(CONTENT), piece=0),
        control("1" * 9, len(CONTENT)),
        control("111", 2**64 - 1),
        control("111", len(CONTENT), info_hash=b"h" * 20),
        control("111", len(CONTENT))[:9] + b"\x14" + control("111", len(CONTENT))[10:],
        b"<html>" * 100,
    ],
)
def test_nothing_is_believed_beside_a_control_file_without_sense(
    tmp_path: Path, opened: OpenPart, nonsense: bytes
) -> None:
    part = opened(save(tmp_path / "f", CONTENT, nonsense))
    assert (part.good_bytes, part.aria2_total) == (0, None)


@given(st.binary(max_size=200) | st.binary(max_size=80).map(lambda rest: ARIA2_TWO_CONNECTIONS[:20] + rest))
def test_no_control_file_is_an_error(content: bytes) -> None:
    progress = parse_aria2_control(content)
    assert progress is None or 0 <= progress.complete_bytes <= progress.total_bytes


@given(st.text("01", min_size=1, max_size=70), st.integers(1, 2**20), st.integers(0, 2**20))
def test_a_control_file_is_read_as_it_was_written(bits: str, piece: int, cut: int) -> None:
    total = len(bits) * piece - cut % piece
    progress = parse_aria2_control(control(bits, total, piece))
    assert progress is not None
    assert progress.total_bytes == total
    assert progress.complete_bytes == min(len((bits + "0").partition("0")[0]) * piece, total)


def test_what_is_no_regular_file_is_refused_without_opening_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_only_the_part(path: str, flags: int) -> int:
        assert path == str(tmp_path / "f")
        return really_open(path, flags)

    really_open = os.open
    monkeypatch.setattr(os, "open", open_only_the_part)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    save(tmp_path / "f", CONTENT)
    os.mkfifo(tmp_path / "f.aria2")
    for path in (tmp_path / "pipe", tmp_path / "folder", tmp_path / "loop", tmp_path / "f", Path("/dev/null")):
        with pytest.raises(TaskFailed, match=f"can't continue from {path}: ") as failed:
            open_foreign_part(str(path))
        assert failed.value.verdict.code is FailureCode.FOLDER


@pytest.mark.parametrize("path", ["", "f", "./f", "/a\0b", "~nobody-of-this-name/f"])
def test_a_path_that_is_not_absolute_is_refused(path: str) -> None:
    with pytest.raises(TaskFailed, match="must be an absolute path") as failed:
        open_foreign_part(path)
    assert failed.value.verdict.code is FailureCode.FOLDER


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOENT, FailureCode.FOLDER),
        (errno.EACCES, FailureCode.PERMISSION),
        (errno.EPERM, FailureCode.PERMISSION),
        (errno.EIO, FailureCode.DISK),
    ],
)
def test_what_can_not_be_opened_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: FailureCode
) -> None:
    def refuse(path: str) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(foreign_part, "_open_regular", refuse)
    with pytest.raises(TaskFailed, match=f"can't continue from {tmp_path}/f: {os.strerror(number)}") as failed:
        open_foreign_part(str(tmp_path / "f"))
    assert failed.value.verdict.code is code


def test_no_descriptor_stays_open_after_a_failure(tmp_path: Path) -> None:
    save(tmp_path / "f", CONTENT)
    (tmp_path / "f.aria2").mkdir()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(TaskFailed):
        open_foreign_part(str(tmp_path / "f"))
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("can_copy", [True, False])
def test_the_good_bytes_are_copied_and_no_others(
    tmp_path: Path, opened: OpenPart, monkeypatch: pytest.MonkeyPatch, can_copy: bool
) -> None:
    if not can_copy:

        def refuse(*_: object) -> int:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

        monkeypatch.setattr(os, "copy_file_range", refuse)
    part = opened(save(tmp_path / "f", CONTENT, control("110", len(CONTENT))))
    target = tmp_path / "part"
    fd = os.open(target, os.O_RDWR | os.O_CREAT)
    assert copy_into(fd, part) == 2 * MIB
    os.close(fd)
    assert target.read_bytes() == CONTENT[: 2 * MIB]
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_copy_to_another_file_system_is_complete(tmp_path: Path, opened: OpenPart) -> None:
    part = opened(save(tmp_path / "f", CONTENT))
    fd = os.memfd_create("part")
    assert copy_into(fd, part) == len(CONTENT)
    assert os.pread(fd, len(CONTENT) + 1, 0) == CONTENT
    os.close(fd)


def test_a_part_that_was_cut_meanwhile_is_copied_as_far_as_it_goes(tmp_path: Path, opened: OpenPart) -> None:
    part = opened(save(tmp_path / "f", CONTENT))
    os.truncate(tmp_path / "f", 1234)
    fd = os.memfd_create("part")
    assert copy_into(fd, part) == 1234
    os.close(fd)


def test_a_full_disk_is_no_reason_to_copy_in_another_way(
    tmp_path: Path, opened: OpenPart, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    part = opened(save(tmp_path / "f", CONTENT))
    fd = os.memfd_create("part")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        copy_into(fd, part)
    os.close(fd)


@pytest.mark.parametrize("size", [1, OVERLAP_BYTES - 1, OVERLAP_BYTES, OVERLAP_BYTES + 1, 2 * MIB])
def test_the_overlap_is_the_end_of_the_good_bytes(tmp_path: Path, opened: OpenPart, size: int) -> None:
    part = opened(save(tmp_path / "f", CONTENT[:size] + bytes(100)))
    start, content = overlap(part)
    assert start == max(0, size - OVERLAP_BYTES)
    assert content == CONTENT[start:size]


@pytest.mark.parametrize(
    ("last_modified", "older"),
    [
        (NOON, True),
        ("Wed, 01 May 2024 11:59:59 GMT", True),
        ("Wed, 01 May 2024 12:00:01 GMT", False),
        ("Wed, 01 May 2024 13:00:00 +0200", True),
        ("Wed May  1 12:00:01 2024", False),
        (None, True),
        ("", True),
        ("yesterday", True),
        ("Wed, 99 Foo 99999 99:99:99 GMT", True),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", True),
    ],
)
def test_a_server_file_that_changed_after_the_part_is_another(
    tmp_path: Path, opened: OpenPart, last_modified: str | None, older: bool
) -> None:
    path = save(tmp_path / "f", CONTENT)
    os.utime(path, (NOON_AT, NOON_AT))
    assert may_be_older_than(last_modified, opened(path)) is older


@given(st.text(max_size=60))
def test_no_last_modified_is_an_error(value: str) -> None:
    part = ForeignPart(path="/f", fd=-1, good_bytes=0, mtime=NOON_AT, aria2_total=None)
    assert may_be_older_than(value, part) in (True, False)
