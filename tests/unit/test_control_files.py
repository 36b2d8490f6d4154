"""The control file: what was written is read, what was torn is not believed."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_lib.worker.files.control_file import SLOT_BYTES, ControlFile, ControlRecord, decode_slots, encode_slot
from autodl_lib.worker.network.response import RemoteVersion

RECORD = ControlRecord(
    tag="db-1",
    version=RemoteVersion(size=1000, etag='"a"', last_modified=None),
    ranges=((0, 100), (200, 300)),
)
NEWER = replace(RECORD, ranges=((0, 500),))


def test_a_slot_is_read_back() -> None:
    assert decode_slots(encode_slot(RECORD, 1)) == (RECORD, 1)


def test_the_newest_slot_counts_wherever_it_is() -> None:
    old, new = encode_slot(RECORD, 8), encode_slot(NEWER, 9)
    assert decode_slots(old + new) == (NEWER, 9)
    assert decode_slots(new + old) == (NEWER, 9)


@pytest.mark.parametrize("torn_at", [0, 1, 50, 100, 150, 180])
def test_a_torn_slot_costs_one_checkpoint(torn_at: int) -> None:
    old, new = encode_slot(RECORD, 8), encode_slot(NEWER, 9)
    before = encode_slot(replace(RECORD, tag="x" * 60, ranges=((0, 1),)), 7)
    torn = new[:torn_at] + before[torn_at:]
    found = decode_slots(old + torn)
    assert found in ((RECORD, 8), (NEWER, 9))
    assert found is not None
    if found[1] == 9:
        assert torn.rstrip() == new.rstrip()


@given(st.binary(max_size=200))
def test_garbage_is_no_control_file(garbage: bytes) -> None:
    assert decode_slots(garbage) is None
    assert decode_slots(garbage.ljust(SLOT_BYTES * 2, b" ")) is None


@given(st.integers(0, 250), st.integers(0, 255))
def test_a_byte_that_changed_is_noticed(position: int, value: int) -> None:
    slot = bytearray(encode_slot(RECORD, 1))
    if slot[position] != value and position < len(slot.rstrip()):
        slot[position] = value
        assert decode_slots(bytes(slot)) in (None, (RECORD, 1))


def forged(**changes: object) -> bytes:
    """Make a slot with a right checksum over wrong content."""
    import zlib

    body = json.loads(encode_slot(RECORD, 1))
    body.update(changes)
    body = {key: value for key, value in body.items() if key != "crc" and value is not ...}
    body["crc"] = zlib.crc32(json.dumps(body, separators=(",", ":"), sort_keys=True).encode())
    return json.dumps(body).encode().ljust(SLOT_BYTES)


@pytest.mark.parametrize(
    "changes",
    [
        {"ranges": [[0, 0]]},
        {"ranges": [[5, 1]]},
        {"ranges": [[-1, 5]]},
        {"ranges": [[0, 10], [5, 20]]},
        {"ranges": [[0, 10], [10, 20]]},
        {"ranges": [[20, 30], [0, 10]]},
        {"ranges": [[0, 2000]]},
        {"ranges": [[0, 1.5]]},
        {"ranges": [[0, True]]},
        {"ranges": [[0]]},
        {"ranges": None},
        {"ranges": [[i * 2, i * 2 + 1] for i in range(300)]},
        {"size": -1},
        {"size": "1000"},
        {"size": 2**70},
        {"tag": None},
        {"etag": 5},
        {"last_modified": []},
        {"seq": -1},
        {"seq": ...},
        {"extra": 1},
    ],
)
def test_nonsense_with_a_right_checksum_is_not_believed(changes: dict[str, object]) -> None:
    assert decode_slots(forged()) == (RECORD, 1)
    assert decode_slots(forged(**changes)) is None


def test_slots_are_written_in_turn(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    control = ControlFile.create("c", fd)
    control.write(RECORD, durable=True)
    first = (tmp_path / "c").read_bytes()
    control.write(NEWER, durable=True)
    second = (tmp_path / "c").read_bytes()
    control.close()
    assert decode_slots(first) == (RECORD, 1)
    assert decode_slots(second) == (NEWER, 2)
    assert first[SLOT_BYTES:] == second[SLOT_BYTES : SLOT_BYTES * 2]
    reopened = ControlFile.open("c", fd)
    assert reopened is not None
    assert reopened[1] == NEWER
    reopened[0].write(RECORD, durable=False)
    assert decode_slots((tmp_path / "c").read_bytes()) == (RECORD, 3)
    reopened[0].close()
    os.close(fd)


@pytest.mark.parametrize("kind", ["symlink", "folder", "fifo", "missing"])
def test_what_is_no_regular_file_is_no_control_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "c"
    match kind:
        case "symlink":
            (tmp_path / "target").write_bytes(encode_slot(RECORD, 1))
            path.symlink_to("target")
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
    fd = os.open(tmp_path, os.O_RDONLY)
    assert ControlFile.open("c", fd) is None
    os.close(fd)


def test_completeness_needs_every_byte() -> None:
    assert not NEWER.is_complete()
    assert replace(NEWER, ranges=((0, 1000),)).is_complete()
    assert not replace(NEWER, ranges=((0, 500), (600, 1000))).is_complete()
    unknown = RemoteVersion(size=None, etag=None, last_modified=None)
    assert not replace(NEWER, version=unknown).is_complete()
