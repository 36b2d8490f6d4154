"""What becomes of the file that has a task's name already: only what the task says it is about is replaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.assignments import assignment

from autodl_lib.contract.task import OnConflict
from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.contract.worker_messages import Assign
from autodl_lib.worker.files.conditions import with_conditions
from autodl_lib.worker.files.folder import Folder, Folders

NEWER = TransferOptions(if_newer=True)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folders().open(str(tmp_path))


def assigned(folder: Folder, options: TransferOptions, **fields: Any) -> Assign:
    """Make an assignment for a file `f`."""
    return assignment("http://a.example/f", folder.path, options=options, **fields)


def file(folder: Folder, name: str = "f", mtime: float = 1_000_000_000) -> Path:
    """Make a file."""
    path = Path(folder.path, name)
    path.write_text("old")
    os.utime(path, (mtime, mtime))
    return path


def test_without_a_condition_nothing_changes(folder: Folder) -> None:
    file(folder)
    assign = assigned(folder, TransferOptions())
    assert with_conditions(assign, folder) == (assign, None)


@pytest.mark.parametrize("output", [None, "mine"])
def test_what_is_newer_replaces_the_file_of_that_name(folder: Folder, output: str | None) -> None:
    file(folder, output or "f")
    assign, date = with_conditions(assigned(folder, NEWER, output=output), folder)
    assert (assign.output, assign.on_conflict) == (output or "f", OnConflict.OVERWRITE)
    assert date == "Sun, 09 Sep 2001 01:46:40 GMT"


def test_where_there_is_no_file_nothing_may_be_replaced(folder: Folder) -> None:
    assign, date = with_conditions(assigned(folder, NEWER), folder)
    assert (assign.output, assign.on_conflict, date) == ("f", OnConflict.RENAME, None)


def test_what_is_no_file_is_not_replaced(folder: Folder) -> None:
    target = file(folder, "target")
    Path(folder.path, "link").symlink_to(target)
    Path(folder.path, "dir").mkdir()
    os.mkfifo(Path(folder.path, "fifo"))
    for name in ("link", "dir", "fifo"):
        assign, date = with_conditions(assigned(folder, NEWER, output=name), folder)
        assert (assign.on_conflict, date) == (OnConflict.RENAME, None)


def test_a_time_that_http_can_not_write_is_no_condition(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file(folder)
    real = os.stat(path)
    late = os.stat_result((*real[:8], 10**12, *real[9:]))
    monkeypatch.setattr(os, "stat", lambda *_, **__: late)  # few file systems keep such a time
    assign, date = with_conditions(assigned(folder, NEWER), folder)
    assert (assign.on_conflict, date) == (OnConflict.OVERWRITE, None)


def test_a_time_before_1970_is_one_like_others(folder: Folder) -> None:
    file(folder, mtime=-1_000_000_000)
    assert with_conditions(assigned(folder, NEWER), folder)[1] == "Sun, 24 Apr 1938 22:13:20 GMT"


def test_a_part_that_has_the_final_name_makes_room_for_the_complete_file(folder: Folder) -> None:
    options = TransferOptions(continue_from=str(file(folder)))
    assign, date = with_conditions(assigned(folder, options), folder)
    assert (assign.output, assign.on_conflict, date) == ("f", OnConflict.OVERWRITE, None)


def test_a_part_elsewhere_replaces_nothing(folder: Folder) -> None:
    file(folder)
    for part in (file(folder, "other"), Path(folder.path, "missing")):
        assign, _ = with_conditions(assigned(folder, TransferOptions(continue_from=str(part))), folder)
        assert assign.on_conflict is OnConflict.RENAME


def test_a_link_of_the_final_name_to_the_part_is_not_the_part(folder: Folder) -> None:
    part = file(folder, "part")
    Path(folder.path, "f").symlink_to(part)
    assign, _ = with_conditions(assigned(folder, TransferOptions(continue_from=str(part))), folder)
    assert assign.on_conflict is OnConflict.RENAME
