"""Part files: claims that can't be had, disks that are full, folders that can only be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.task import OnConflict
from autodl_lib.worker.files.control_file import CONTROL_BYTES, ControlFile, ControlRecord, decode_slots
from autodl_lib.worker.files.folder import Folder, Folders
from autodl_lib.worker.files.part_file import Claim, PartFile, candidates, claim_part, reopen_part
from autodl_lib.worker.files.publish import place
from autodl_lib.worker.network.response import RemoteVersion
from autodl_lib.worker.network.verdicts import TaskFailed

SIZE = 1_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An open folder."""
    return Folders().open(str(tmp_path))


def claim(name: str = "f", tag: str = "t", policy: OnConflict = OnConflict.RENAME) -> Claim:
    """Make a claim."""
    return Claim(name=name, tag=tag, on_conflict=policy)


def record(end: int, tag: str = "t") -> ControlRecord:
    """Make what a control file says of a file's first bytes."""
    version = RemoteVersion(size=SIZE, etag='"e"', last_modified=None)
    return ControlRecord(tag=tag, version=version, ranges=((0, end),) if end else ())


def failing(times: int, number: int, then: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that fails with an errno so many times."""
    left = [times]

    def call(*arguments: Any, **named: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return then(*arguments, **named)

    return call


def test_short_writes_are_completed(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, part = claim_part(folder, claim())
    monkeypatch.setattr(os, "pwritev", lambda fd, buffers, offset: os.pwrite(fd, b"".join(buffers)[:3], offset))
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, bytes(data)[:4], offset))
    part.write([b"0123456789", b"abcdefghij"], 5)
    assert (tmp_path / part.name).read_bytes() == bytes(5) + b"0123456789abcdefghij"


def test_on_a_full_disk_some_bytes_make_room_for_the_control_file(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, part = claim_part(folder, claim())
    part.write([bytes(SIZE)], 0)
    monkeypatch.setattr(ControlFile, "create", failing(1, errno.ENOSPC, ControlFile.create))
    part.checkpoint(record(SIZE), durable=True)
    assert part.saved == record(SIZE - 2 * CONTROL_BYTES)
    assert (tmp_path / part.name).stat().st_size == SIZE - 2 * CONTROL_BYTES
    assert decode_slots((tmp_path / ".f.autodl-ctl").read_bytes()) == (part.saved, 1)


def test_a_checkpoint_that_fails_leaves_the_one_before(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    _, part = claim_part(folder, claim())
    part.write([bytes(SIZE)], 0)
    part.checkpoint(record(1000), durable=True)
    monkeypatch.setattr(os, "fsync", failing(1, errno.EIO, os.fsync))
    for end in (2000, 3000):
        with pytest.raises(OSError, match="Input/output"):
            part.checkpoint(record(end), durable=True)
    assert part.saved == record(1000)
    part.close()
    reopened = reopen_part(folder, ".f.autodl-part", "t")
    assert reopened is not None
    assert reopened[1] == record(1000)


def test_starting_over_is_written_down_before_the_first_byte_changes(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, part = claim_part(folder, claim())
    part.write([bytes(SIZE)], 0)
    part.checkpoint(record(1000), durable=True)
    monkeypatch.setattr(os, "ftruncate", failing(1, errno.EIO, os.ftruncate))
    with pytest.raises(OSError, match="Input/output"):
        part.start_over(ControlRecord(tag="t", version=record(1).version, ranges=()), durable=True)
    part.close()
    reopened = reopen_part(folder, ".f.autodl-part", "t")
    assert reopened is not None
    assert reopened[1].bytes_done() == 0


def test_where_somebody_takes_the_control_file_s_name_first_nothing_is_kept_and_nothing_fails(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, part = claim_part(folder, claim())
    part.write([bytes(5000)], 0)
    unlink = os.unlink

    def take_first(name: str, *, dir_fd: int) -> None:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL, dir_fd=dir_fd))
        raise FileNotFoundError(errno.ENOENT, "it was not there a moment ago")

    monkeypatch.setattr(os, "unlink", take_first)
    part.checkpoint(record(5000), durable=False)
    assert part.saved is None
    monkeypatch.setattr(os, "unlink", unlink)
    part.checkpoint(record(5000), durable=False)
    assert part.saved == record(5000), "the next one is saved"
    part.close()


def test_a_part_in_use_is_not_reopened(folder: Folder) -> None:
    _, part = claim_part(folder, claim())
    part.checkpoint(record(0), durable=False)
    assert reopen_part(folder, part.name, "t") is None
    part.close()
    assert reopen_part(folder, part.name, "t") is not None


def test_a_stale_control_file_does_not_speak_for_a_new_part(folder: Folder) -> None:
    _, old = claim_part(folder, claim(tag="old"))
    old.write([bytes(5000)], 0)
    old.checkpoint(record(5000, "old"), durable=False)
    os.unlink(old.name, dir_fd=folder.fd)
    old.close()
    _, new = claim_part(folder, claim(tag="new"))
    new.write([b"x" * 6000], 0)
    new.close()
    assert reopen_part(folder, new.name, "old") is None


def test_a_file_system_without_locks_still_takes_new_parts(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    from autodl_lib.worker.files import part_lock

    monkeypatch.setattr(part_lock.fcntl, "flock", failing(1000, errno.ENOLCK, part_lock.fcntl.flock))
    name, first = claim_part(folder, claim())
    assert name == "f"
    assert isinstance(first, PartFile)
    name, _ = claim_part(folder, claim())
    assert name == "f.1"


@pytest.mark.parametrize("policy", [OnConflict.FAIL, OnConflict.OVERWRITE])
def test_what_a_task_that_is_not_running_keeps_is_in_nobodys_way(folder: Folder, policy: OnConflict) -> None:
    for tag in ("paused", "failed"):
        _, part = claim_part(folder, claim(tag=tag, policy=policy))
        part.write([tag.encode()], 0)
        part.checkpoint(record(1, tag), durable=False)
        part.close()
    name, part = claim_part(folder, claim(policy=policy))
    assert name == "f"
    with pytest.raises(TaskFailed) as caught:
        claim_part(folder, claim(tag="another", policy=policy))
    assert caught.value.verdict.code is FailureCode.FILE_BUSY
    part.remove()
    for left, tag in ((".f.autodl-part", "paused"), (".f~1.autodl-part", "failed")):
        reopened = reopen_part(folder, left, tag)
        assert reopened is not None
        assert os.pread(reopened[0].fd, 10, 0) == tag.encode()


@pytest.mark.parametrize("policy", [OnConflict.FAIL, OnConflict.OVERWRITE])
def test_a_folder_with_a_part_s_name_is_in_nobodys_way(folder: Folder, tmp_path: Path, policy: OnConflict) -> None:
    (tmp_path / ".f.autodl-part").mkdir()
    assert claim_part(folder, claim(policy=policy))[0] == "f"


def test_numbers_are_remembered_only_when_there_are_many(folder: Folder, tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / ("f" if number == 0 else f"f.{number}")).touch()
    assert next(candidates(folder, "f")) == "f.200"
    (tmp_path / "f.3").unlink()
    assert next(candidates(folder, "f")) == "f.3"


@pytest.mark.parametrize("number", [None, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("has_renameat2", [True, False])
def test_whatever_the_file_system_can_do_a_file_is_published_and_replaces_nothing(
    folder: Folder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int | None,
    taken: bool,
    has_renameat2: bool,
) -> None:
    from autodl_lib.worker.files import publish

    if number is not None:
        monkeypatch.setattr(os, "link", failing(100, number, os.link))
    if not has_renameat2:
        monkeypatch.setattr(publish, "_renameat2", None)
    name, part = claim_part(folder, claim())
    part.write([b"new"], 0)
    if taken:
        (tmp_path / "f").write_bytes(b"mine")
    following = place(part, name, OnConflict.RENAME, wanted=name)
    assert following == ("f.1" if taken else None)
    assert (tmp_path / "f").read_bytes() == (b"mine" if taken else b"new")
    assert (tmp_path / part.name).exists() is taken
