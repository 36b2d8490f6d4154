"""Whether a complete part file is the file that was promised: its checksums, from wherever they are known.

Runs as: the task's owner; `Verification.run` in the sync thread.  Talks to: the part file.
Checksums come from the task, from lists that the task names, and from the header fields of the response.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from autodl_lib.contract.checksums import Checksum, find_in_list, is_list_url, parse_checksum
from autodl_lib.contract.errors import InvalidParams
from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import NO_OPTIONS, PieceHashes, TransferOptions
from autodl_lib.contract.urls import public_url
from autodl_lib.worker.files.digest_fields import expected_digests
from autodl_lib.worker.files.hashing import HashingStopped, failed_pieces, find_mismatch
from autodl_lib.worker.network.response_head import ResponseHead
from autodl_lib.worker.network.verdicts import TaskFailed, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ChecksumList:
    """A list that was fetched."""

    url: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a `Verification` found: pieces that are wrong, else what is wrong with the whole; neither: all is well."""

    bad_pieces: tuple[tuple[int, int], ...] = ()
    complaint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What the bytes of the file must be."""

    checksums: tuple[Checksum, ...]
    pieces: PieceHashes | None

    def is_empty(self) -> bool:
        """Tell whether there is nothing to check."""
        return not self.checksums and self.pieces is None

    def words(self) -> str:
        """Say what was checked."""
        algorithms = [checksum.algorithm for checksum in self.checksums]
        return ", ".join([*algorithms, *(["the checksums of its pieces"] if self.pieces else [])])


_NOTHING = Expectation(checksums=(), pieces=None)


def list_urls(options: TransferOptions) -> list[str]:
    """Return the lists of checksums that must be fetched."""
    return [text for text in options.checksums if is_list_url(text)]


def names_of(urls: Sequence[str], output: str | None) -> list[str]:
    """Return what the file may be called in a list, the likeliest first."""
    found = [] if output is None else [output]
    for url in urls:
        _, _, after_host = url.partition("?")[0].partition("#")[0].partition("://")[2].partition("/")
        last = after_host.rpartition("/")[2]
        if url[:3].lower() == "ftp":
            last = last.partition(";type=")[0]
        found += [unquote(last), last]
    return list(dict.fromkeys([name for name in found if name]))


def promised_by(head: ResponseHead | None) -> tuple[Checksum, ...]:
    """Return what the header fields of the first accepted response promise."""
    if head is None:
        return ()
    return expected_digests(head.fields, whole=head.status == 200, encoded="content-encoding" in head.fields)


def expectation(
    options: TransferOptions, lists: Sequence[ChecksumList], names: Sequence[str], promised: tuple[Checksum, ...]
) -> Expectation:
    """Put together everything that the file must agree with.

    Raises: TaskFailed with `checksum`, when a list does not name the file.
    """
    if options is NO_OPTIONS and not promised:
        return _NOTHING
    checksums: list[Checksum] = []
    for text in options.checksums:
        if is_list_url(text):
            continue
        try:
            checksums.append(parse_checksum(text))
        except InvalidParams as error:
            raise TaskFailed(FailureCode.CHECKSUM, str(error)) from None
    for item in lists:
        found = find_in_list(item.content, names, item.url)
        if found is None:
            file = " or ".join(names[:3]) or "the file"
            words = f"{public_url(item.url)} has no checksum of {file}, or contradicts itself"
            raise TaskFailed(FailureCode.CHECKSUM, words)
        checksums.append(found)
    return Expectation(checksums=tuple(dict.fromkeys([*checksums, *promised])), pieces=options.pieces)


class Verification:
    """One look at a part file: `run` in the sync thread, then `findings` or `failure` in the loop."""

    def __init__(self, fd: int, size_bytes: int, expected: Expectation, is_stopped: Callable[[], bool]) -> None:
        self.findings: Findings | None = None
        """None: it was stopped, or failed."""
        self.failure: Verdict | None = None
        self._fd = fd
        self._size_bytes = size_bytes
        self._expected = expected
        self._is_stopped = is_stopped

    def run(self) -> None:
        """Read and compare.

        Raises: OSError.
        """
        try:
            self.findings = self._look()
        except TaskFailed as failed:
            self.failure = failed.verdict
        except HashingStopped:
            return

    def _look(self) -> Findings:
        if self._expected.pieces is not None:
            bad = failed_pieces(self._fd, self._size_bytes, self._expected.pieces, self._is_stopped)
            if bad:
                start, end = bad[0]
                words = f"the bytes from {start} to {end} do not have the checksum of their piece"
                return Findings(bad_pieces=bad, complaint=words)
        complaint = find_mismatch(self._fd, self._size_bytes, self._expected.checksums, self._is_stopped)
        return Findings(complaint=complaint)
