"""Hashing part files: the right values in one pass, pieces that are wrong, files that changed, stops."""

from __future__ import annotations

import hashlib
import itertools
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_lib.contract.checksums import Checksum, parse_checksum
from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import PieceHashes
from autodl_lib.worker.files.hashing import (
    HashingStopped,
    check_pieces_plausible,
    failed_pieces,
    find_mismatch,
    hash_file,
    matches,
    mismatch_words,
)
from autodl_lib.worker.network.verdicts import TaskFailed

CONTENT = os.urandom(2 * 1024 * 1024 + 12345)
PIECE = 65536


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """A file with CONTENT, open for reading and writing."""
    (tmp_path / "part").write_bytes(CONTENT)
    fd = os.open(tmp_path / "part", os.O_RDWR)
    yield fd
    os.close(fd)


def checksum(algorithm: str, content: bytes = CONTENT) -> Checksum:
    """Make a checksum."""
    return Checksum(algorithm=algorithm, hex=hashlib.new(algorithm, content).hexdigest())


def pieces_of(content: bytes, length: int = PIECE, algorithm: str = "sha256") -> PieceHashes:
    """Make the checksums of a file's pieces."""
    starts = range(0, len(content), length) or range(1)
    digests = [hashlib.new(algorithm, content[start : start + length]).hexdigest() for start in starts]
    return PieceHashes(algorithm=algorithm, length_bytes=length, digests=tuple(digests))


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024, 1024 * 1024 + 1, len(CONTENT)])
def test_several_algorithms_share_one_pass(fd: int, size: int) -> None:
    algorithms = ("sha256", "md5", "blake2b", "sha3_256")
    assert hash_file(fd, size, algorithms) == tuple([checksum(name, CONTENT[:size]) for name in algorithms])
    assert hash_file(fd, size, ()) == ()


@pytest.mark.parametrize("name", sorted(hashlib.algorithms_guaranteed))
def test_every_algorithm_can_be_expected(fd: int, name: str) -> None:
    state = hashlib.new(name, CONTENT)
    digits = state.hexdigest() if state.digest_size else state.hexdigest(20)  # type: ignore[call-arg]
    right = parse_checksum(f"{name}={digits}")
    wrong = parse_checksum(f"{name}={digits[:-1]}{'1' if digits[-1] == '0' else '0'}")
    assert find_mismatch(fd, len(CONTENT), [right]) is None
    words = find_mismatch(fd, len(CONTENT), [right, wrong])
    assert words == f"the file's {name} is {right.hex}, and should be {wrong.hex}"


def test_a_shake_hash_is_compared_in_the_length_that_is_expected(fd: int) -> None:
    (actual,) = hash_file(fd, len(CONTENT), ["shake_128"])
    for size in (16, 32, 64, 256):
        expected = Checksum(algorithm="shake_128", hex=hashlib.shake_128(CONTENT).hexdigest(size))
        assert matches(expected, actual)
        assert find_mismatch(fd, len(CONTENT), [expected]) is None
    other = Checksum(algorithm="shake_128", hex=hashlib.shake_128(b"").hexdigest(16))
    assert not matches(other, actual)
    assert mismatch_words(other, actual) == f"the file's shake_128 is {actual.hex[:32]}, and should be {other.hex}"


def test_the_same_digits_of_another_algorithm_are_no_match() -> None:
    assert not matches(Checksum(algorithm="sha256", hex="0" * 64), Checksum(algorithm="sha3_256", hex="0" * 64))
    assert not matches(Checksum(algorithm="sha256", hex="0" * 63), Checksum(algorithm="sha256", hex="0" * 64))


def test_a_file_that_was_cut_never_passes(fd: int) -> None:
    os.ftruncate(fd, len(CONTENT) - 1)
    with pytest.raises(OSError, match="the file ends after"):
        find_mismatch(fd, len(CONTENT), [checksum("sha256", CONTENT[:-1])])
    with pytest.raises(OSError, match="the file ends after"):
        failed_pieces(fd, len(CONTENT), pieces_of(CONTENT))


def test_hashing_stops_when_nobody_waits_for_it(fd: int) -> None:
    asked: list[None] = []

    def is_stopped() -> bool:
        asked.append(None)
        return len(asked) == 2

    with pytest.raises(HashingStopped):
        hash_file(fd, len(CONTENT), ["sha256"], is_stopped)
    assert len(asked) == 2
    with pytest.raises(HashingStopped):
        failed_pieces(fd, len(CONTENT), pieces_of(CONTENT), lambda: True)


def test_memory_is_flat_whatever_the_size(fd: int) -> None:
    os.ftruncate(fd, 64 * 1024 * 1024)
    tracemalloc.start()
    hash_file(fd, 64 * 1024 * 1024, ["md5"])
    pieces = PieceHashes(algorithm="md5", length_bytes=32 * 1024 * 1024, digests=("0" * 32, "0" * 32))
    assert failed_pieces(fd, 64 * 1024 * 1024, pieces) == ((0, 64 * 1024 * 1024),)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * 1024 * 1024


@pytest.mark.parametrize(
    ("damaged", "ranges"),
    [
        ([], ()),
        ([0], ((0, PIECE),)),
        ([1, 2, 3, 7], ((PIECE, 4 * PIECE), (7 * PIECE, 8 * PIECE))),
        ([31, 32], ((31 * PIECE, len(CONTENT)),)),
        (range(33), ((0, len(CONTENT)),)),
    ],
)
def test_only_pieces_that_are_wrong_fail(fd: int, damaged: list[int], ranges: tuple[tuple[int, int], ...]) -> None:
    for number in damaged:
        byte = CONTENT[number * PIECE + 5]
        os.pwrite(fd, bytes([byte ^ 1]), number * PIECE + 5)
    assert failed_pieces(fd, len(CONTENT), pieces_of(CONTENT)) == ranges


def test_pieces_may_be_spelled_as_metalink_does(fd: int) -> None:
    right = pieces_of(CONTENT)
    digests = tuple([digest.upper() for digest in right.digests])
    assert failed_pieces(fd, len(CONTENT), PieceHashes(algorithm="sha-256", length_bytes=PIECE, digests=digests)) == ()


@given(st.binary(max_size=9000), st.integers(1024, 5000), st.data())
def test_the_ranges_that_fail_are_the_pieces_that_differ(content: bytes, length: int, data: st.DataObject) -> None:
    damaged = bytearray(content)
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)) if content else []:
        damaged[position] ^= 0xFF
    fd = os.memfd_create("part")
    try:
        os.write(fd, damaged)
        ranges = failed_pieces(fd, len(content), pieces_of(content, length))
    finally:
        os.close(fd)
    covered = {offset for start, end in ranges for offset in range(start, end)}
    for start in range(0, len(content), length):
        end = min(start + length, len(content))
        differs = content[start:end] != damaged[start:end]
        assert all((offset in covered) == differs for offset in range(start, end))
    assert all(first[1] < second[0] for first, second in itertools.pairwise(ranges))


@pytest.mark.parametrize(
    ("pieces", "size", "words"),
    [
        (pieces_of(CONTENT), len(CONTENT) - PIECE, "it is another file"),
        (pieces_of(CONTENT), len(CONTENT) + PIECE, "it is another file"),
        (pieces_of(CONTENT), 0, "it is another file"),
        (PieceHashes(algorithm="sha265", length_bytes=1024, digests=("0" * 64,)), 5, "unknown checksum algorithm"),
        (PieceHashes(algorithm="sha256", length_bytes=1024, digests=("0" * 63,)), 5, "not as long as those of sha256"),
    ],
)
def test_pieces_of_another_file_are_refused(pieces: PieceHashes, size: int, words: str) -> None:
    with pytest.raises(TaskFailed, match=words) as failed:
        check_pieces_plausible(pieces, size)
    assert failed.value.verdict.code is FailureCode.CHECKSUM


@pytest.mark.parametrize("size", [0, 1, 1024, 1025, 5000])
def test_pieces_of_this_file_are_not_refused(size: int) -> None:
    check_pieces_plausible(pieces_of(b"x" * size, 1024), size)
