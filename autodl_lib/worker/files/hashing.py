"""Hashing what is in a part file, whole and in pieces, and comparing it with what it should be.

Runs as: the task's owner, in the sync thread: hashing releases the interpreter's lock.  Talks to: the part file.
Invariants: memory is flat, whatever the size; a file that is shorter than it was said to be never passes.
How it fails: OSError; HashingStopped once `is_stopped` says so, which is asked after every buffer.
"""

from __future__ import annotations

import difflib  # noqa: F401  (parse_checksum imports it when a worker can no longer read Python's folders)
import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from autodl_lib.contract.checksums import XOF_MAX_BYTES, Checksum, find_algorithm, has_right_length
from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import PieceHashes
from autodl_lib.worker.network.verdicts import TaskFailed

if TYPE_CHECKING:
    from hashlib import _Hash

_BUFFER_BYTES = 1024 * 1024


class HashingStopped(Exception):
    """Nobody waits for the result any more."""


def never() -> bool:
    """Go on to the end."""
    return False


def hash_file(
    fd: int, size_bytes: int, algorithms: Sequence[str], is_stopped: Callable[[], bool] = never
) -> tuple[Checksum, ...]:
    """Return the checksums of a file's first `size_bytes`, one for each algorithm of hashlib, read once.

    Those of the shake functions are as long as any that they can be compared with.
    Raises: OSError, HashingStopped.
    """
    hashes = [_new(algorithm) for algorithm in algorithms]
    os.posix_fadvise(fd, 0, size_bytes, os.POSIX_FADV_SEQUENTIAL)
    _feed(fd, (0, size_bytes), hashes, is_stopped)
    return tuple([_finished(algorithm, state) for algorithm, state in zip(algorithms, hashes, strict=True)])


def find_mismatch(
    fd: int, size_bytes: int, expected: Sequence[Checksum], is_stopped: Callable[[], bool] = never
) -> str | None:
    """Return the sentence about the first checksum that a file does not have; None when it has them all.

    Raises: OSError, HashingStopped.
    """
    algorithms = list(dict.fromkeys([checksum.algorithm for checksum in expected]))
    actual = dict(zip(algorithms, hash_file(fd, size_bytes, algorithms, is_stopped), strict=True))
    for checksum in expected:
        if not matches(checksum, actual[checksum.algorithm]):
            return mismatch_words(checksum, actual[checksum.algorithm])
    return None


def matches(expected: Checksum, actual: Checksum) -> bool:
    """Tell whether what hash_file returned is what was expected; a shake hash is expected in any length."""
    return _comparable(expected, actual) == expected.hex and actual.algorithm == expected.algorithm


def mismatch_words(expected: Checksum, actual: Checksum) -> str:
    """Return the sentence for the task's owner, with both values."""
    return f"the file's {actual.algorithm} is {_comparable(expected, actual)}, and should be {expected.hex}"


def failed_pieces(
    fd: int, size_bytes: int, pieces: PieceHashes, is_stopped: Callable[[], bool] = never
) -> tuple[tuple[int, int], ...]:
    """Return the half-open byte ranges of pieces that hash to something else, ascending, adjacent ones as one.

    Raises: OSError, HashingStopped; TaskFailed as check_pieces_plausible does.
    """
    check_pieces_plausible(pieces, size_bytes)
    algorithm = find_algorithm(pieces.algorithm) or pieces.algorithm
    os.posix_fadvise(fd, 0, size_bytes, os.POSIX_FADV_SEQUENTIAL)
    failed: list[tuple[int, int]] = []
    for start, digest in zip(range(0, size_bytes, pieces.length_bytes), pieces.digests, strict=False):
        end = min(start + pieces.length_bytes, size_bytes)
        state = _new(algorithm)
        _feed(fd, (start, end), [state], is_stopped)
        if matches(Checksum(algorithm=algorithm, hex=digest.lower()), _finished(algorithm, state)):
            continue
        if failed and failed[-1][1] == start:
            start = failed.pop()[0]
        failed.append((start, end))
    return tuple(failed)


def check_pieces_plausible(pieces: PieceHashes, size_bytes: int) -> None:
    """Refuse piece checksums that can't be those of a file of this size.

    Raises: TaskFailed with `checksum`.
    """
    algorithm = find_algorithm(pieces.algorithm)
    if algorithm is None:
        raise TaskFailed(FailureCode.CHECKSUM, f"unknown checksum algorithm {pieces.algorithm!r} of the pieces")
    if not all(has_right_length(algorithm, digest) for digest in pieces.digests):
        raise TaskFailed(FailureCode.CHECKSUM, f"the checksums of the pieces are not as long as those of {algorithm}")
    count = max(1, -(-size_bytes // pieces.length_bytes))
    if len(pieces.digests) != count:
        known = f"{len(pieces.digests)} pieces of {pieces.length_bytes} bytes"
        message = f"the checksums are those of {known}, and the file has {size_bytes} bytes: it is another file"
        raise TaskFailed(FailureCode.CHECKSUM, message)


def _new(algorithm: str) -> _Hash:
    return hashlib.new(algorithm, usedforsecurity=False)


def _feed(fd: int, span: tuple[int, int], hashes: Sequence[_Hash], is_stopped: Callable[[], bool]) -> None:
    offset, end = span
    buffer = memoryview(bytearray(min(_BUFFER_BYTES, max(end - offset, 0))))
    while offset < end:
        if is_stopped():
            raise HashingStopped
        count = os.preadv(fd, [buffer[: end - offset]], offset)
        if count == 0:
            raise OSError(errno.ENODATA, f"the file ends after {offset} bytes, and should have {end}")
        for state in hashes:
            state.update(buffer[:count])
        offset += count


def _finished(algorithm: str, state: _Hash) -> Checksum:
    if state.digest_size:
        return Checksum(algorithm=algorithm, hex=state.hexdigest())
    digits: str = state.hexdigest(XOF_MAX_BYTES)  # type: ignore[call-arg]
    return Checksum(algorithm=algorithm, hex=digits)


def _comparable(expected: Checksum, actual: Checksum) -> str:
    """Return so much of an actual hash as is expected: a shorter shake hash is the beginning of the longer one."""
    return actual.hex[: len(expected.hex)] if actual.algorithm.startswith("shake") else actual.hex
