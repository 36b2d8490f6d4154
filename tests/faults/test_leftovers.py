"""What is left of an earlier attempt is never mistaken: not when its removal is undone, not when it can't be opened."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.assignments import assignment
from support.queues import new_task, open_store

from autodl_lib.contract.states import TaskEvent
from autodl_lib.contract.task import OnConflict, TaskError, TaskId
from autodl_lib.contract.worker_messages import FileIdentity
from autodl_lib.store.rows import Change, Description
from autodl_lib.store.store import Store
from autodl_lib.store.transaction import Transaction
from autodl_lib.worker.files import part_file
from autodl_lib.worker.files.control_file import ControlRecord, Ranges, decode_slots
from autodl_lib.worker.files.folder import Folder, Folders
from autodl_lib.worker.files.part_file import Claim, PartFile, claim_part, discard_part, reopen_identical, reopen_part
from autodl_lib.worker.files.publish import finish_published
from autodl_lib.worker.holding import Holding
from autodl_lib.worker.main import default_settings
from autodl_lib.worker.network.response import RemoteVersion
from autodl_lib.worker.network.verdicts import TaskFailed, os_verdict
from autodl_lib.worker.phase import Phase
from autodl_lib.worker.session import Session
from autodl_lib.worker.sync_thread import SyncThread

NAME, PART, CONTROL = "a.bin", ".a.bin.autodl-part", ".a.bin.autodl-ctl"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folders().open(str(tmp_path))


@pytest.fixture
def no_descriptors(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a name impossible to open, as when a process has too many files open."""
    refused: set[str] = set()
    really_open = os.open

    def refuse(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if path in refused and not flags & os.O_CREAT:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return really_open(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    return refused.add


def kept(folder: Folder) -> PartFile:
    """Make a part file with a control file, as a halted download leaves it."""
    _, part = claim_part(folder, Claim(name=NAME, on_conflict=OnConflict.RENAME, tag="db:1"))
    part.write([b"x" * 1000], 0)
    version = RemoteVersion(size=5000, etag='"v"', last_modified=None)
    part.checkpoint(ControlRecord(tag="db:1", version=version, ranges=((0, 1000),)), durable=True)
    return part


def still_says(file: FileIO) -> bool:
    file.seek(0)
    return decode_slots(file.read()) is not None


def test_a_control_file_whose_removal_a_power_cut_undoes_says_nothing(folder: Folder, tmp_path: Path) -> None:
    def seen() -> FileIO:
        """Keep the file that may come back, whatever becomes of its name."""
        return (tmp_path / CONTROL).open("rb", buffering=0)

    kept(folder).close()
    with seen() as undone:
        assert still_says(undone)
        discard_part(folder, PART, "db:1")
        assert not still_says(undone)

    part = kept(folder)
    with seen() as undone:
        assert still_says(undone)
        part.remove()
        assert not still_says(undone)

    kept(folder).close()
    with seen() as undone:
        assert still_says(undone)
        (tmp_path / PART).write_bytes(b"short")  # it can't be continued: another part file takes the name
        claim_part(folder, Claim(name=NAME, on_conflict=OnConflict.RENAME, tag="db:1"))[1].close()
        assert not still_says(undone)
    assert os.listdir(tmp_path) == [PART]


def test_a_part_file_that_can_not_be_opened_now_is_not_given_up(
    folder: Folder, no_descriptors: Callable[[str], None]
) -> None:
    kept(folder).close()
    no_descriptors(PART)
    for attempt in (
        lambda: reopen_part(folder, PART, "db:1"),
        lambda: reopen_identical(folder, PART, FileIdentity(inode=1, size_bytes=1, mtime_ns=1)),
        lambda: claim_part(folder, Claim(name=NAME, on_conflict=OnConflict.RENAME, tag="db:1")),
    ):
        with pytest.raises(OSError, match="Too many open files"):
            attempt()
    assert sorted(os.listdir(folder.path)) == [CONTROL, PART]


def test_another_task_s_part_file_stays_when_its_control_file_can_not_be_opened_now(
    folder: Folder, no_descriptors: Callable[[str], None]
) -> None:
    kept(folder).close()
    no_descriptors(CONTROL)
    for attempt in (
        lambda: claim_part(folder, Claim(name=NAME, on_conflict=OnConflict.RENAME, tag="db:2")),
        lambda: discard_part(folder, PART, "db:2"),
        lambda: reopen_part(folder, PART, "db:1"),
    ):
        with pytest.raises(OSError, match="Too many open files"):
            attempt()
    assert sorted(os.listdir(folder.path)) == [CONTROL, PART]


def test_a_published_file_that_can_not_be_opened_now_is_not_downloaded_again(
    folder: Folder, tmp_path: Path, no_descriptors: Callable[[str], None]
) -> None:
    (tmp_path / NAME).write_bytes(b"published")
    status = (tmp_path / NAME).stat()
    identity = FileIdentity(inode=status.st_ino, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
    assert finish_published(folder, NAME, PART, identity)
    no_descriptors(NAME)
    with pytest.raises(OSError, match="Too many open files"):
        finish_published(folder, NAME, PART, identity)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_the_machine_has_none_of_for_now_is_tried_again(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert os_verdict(OSError(number, os.strerror(number)), "write").may_pass()

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(TaskFailed) as failed:
        Folders().open(str(tmp_path))
    assert failed.value.verdict.may_pass()


def test_folders_that_are_made_are_synced_into_those_above_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    really_sync = os.fsync

    def note(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        really_sync(fd)

    monkeypatch.setattr(os, "fsync", note)
    Folders().open(str(tmp_path / "new" / "deep"))
    assert synced == [str(tmp_path), str(tmp_path / "new")]
    Folders().open(str(tmp_path / "new" / "deep"))
    assert len(synced) == 2


def test_a_claim_that_fails_half_way_is_not_in_the_way_of_the_next(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = Claim(name=NAME, on_conflict=OnConflict.FAIL, tag="db:1")
    with monkeypatch.context() as broken:
        broken.setattr(part_file, "remove_control", failing)
        with pytest.raises(OSError, match="Input/output error"):
            claim_part(folder, claim)
    assert os.listdir(tmp_path) == []
    claim_part(folder, claim)[1].close()


def failing(*_: object) -> bool:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_task_that_failed_after_it_was_ready_looks_first_whether_its_file_is_there(tmp_path: Path) -> None:
    identity = FileIdentity(inode=7, size_bytes=8, mtime_ns=9)
    ready = Description(
        name="f",
        part=".f.autodl-part",
        bytes_done=8,
        bytes_total=8,
        http_status=200,
        identity=identity,
    )
    error = TaskError(code="disk", message="could not sync the folder")
    ways = (
        (Change(event=TaskEvent.FAIL, error=error), Change(event=TaskEvent.RETRY)),
        (Change(event=TaskEvent.POSTPONE, error=error, retry_at=0.0), Change(event=TaskEvent.DUE)),
        (Change(event=TaskEvent.PAUSE), Change(event=TaskEvent.RESUME)),
    )

    async def go(way: tuple[Change, Change], store: Store) -> FileIdentity | None:
        def live(transaction: Transaction) -> TaskId:
            [task_id] = transaction.insert([new_task()])
            transaction.apply(task_id, Change(event=TaskEvent.START))
            transaction.describe({task_id: ready})
            for change in way:
                transaction.apply(task_id, change)
            return task_id

        task_id = await store.write(live)
        return store.read.specs([task_id])[task_id].identity

    async def run() -> None:
        with open_store(tmp_path / "queue.db") as store:
            assert [await go(way, store) for way in ways] == [identity] * len(ways)

    asyncio.run(run())


class Fetched:
    """A transfer of which so much has come."""

    def __init__(self, told: bool) -> None:
        self._told = told

    def is_visible(self) -> bool:
        return True

    def is_part_told(self) -> bool:
        return self._told

    def ranges(self) -> Ranges:
        return ((0, 1000),)

    def stop(self) -> None:
        pass


@pytest.mark.parametrize(
    ("visible", "known_part", "kept_files"),
    [(False, None, []), (True, None, [CONTROL, PART]), (False, PART, [CONTROL, PART])],
    ids=["never told", "told as started", "known from an earlier attempt"],
)
def test_a_worker_that_is_left_alone_keeps_only_what_the_queue_knows_of(
    folder: Folder, tmp_path: Path, visible: bool, known_part: str | None, kept_files: list[str]
) -> None:
    assign = assignment("http://host/a.bin", tmp_path, name=NAME, part=known_part)
    facilities = SimpleNamespace(settings=default_settings(), sync=SyncThread(), folders=Folders())
    session = Session(assign, facilities)  # type: ignore[arg-type]
    holding = Holding(assign, folder, facilities.settings)
    _, holding.part = claim_part(folder, Claim(name=NAME, on_conflict=OnConflict.RENAME, tag="db:1"))
    holding.part.write([b"x" * 1000], 0)
    holding.version = RemoteVersion(size=5000, etag='"v"', last_modified=None)
    session._holding, session._fetching, session.phase = holding, Fetched(visible), Phase.TRANSFERRING  # type: ignore[assignment]
    session.leave()
    assert sorted(os.listdir(tmp_path)) == kept_files
