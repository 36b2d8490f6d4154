"""What a complete file is compared with, and what follows: it is let pass, something is fetched again, or it fails.

Runs as: the task's owner.  Talks to: nobody; no I/O (the comparing is `checking.Verification`, in the sync thread).
Pieces that are wrong are fetched again, each time beginning with another source. Where only the whole is wrong, all
of it is fetched again, with one connection: from each source alone that has not brought it alone already.
Invariants: there are at most MOST_ROUNDS rounds for pieces, and one for each source for the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.worker_messages import Assign
from autodl_lib.worker.files.byte_ranges import ByteRanges
from autodl_lib.worker.files.checking import ChecksumList, Expectation, Findings, expectation, names_of, promised_by
from autodl_lib.worker.files.control_file import Ranges
from autodl_lib.worker.network.response_head import ResponseHead
from autodl_lib.worker.network.verdicts import Verdict

MOST_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LetPass:
    """The file is as it should be; `note` says what shows that, where the task had asked."""

    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchAgain:
    """Fetch all but the bytes of `kept` again, beginning with the source `preferred`; `is_plain`: nothing is kept."""

    note: str
    kept: Ranges
    preferred: int
    is_plain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """The file is wrong and stays so."""

    verdict: Verdict


Outcome = LetPass | FetchAgain | Reject


class Checks:
    """What is known about one assignment's file, and how often it was fetched because of that."""

    def __init__(self, assign: Assign) -> None:
        self._options = assign.options
        self._urls = (assign.url, *assign.options.mirrors)
        self._lists: Sequence[ChecksumList] = ()
        self._piece_rounds = self._whole_rounds = 0
        self._tried_alone: set[int] = set()
        self.sha256: str | None = None
        """The file's, once it was let pass and where that was among what was checked."""

    def take_lists(self, lists: Sequence[ChecksumList]) -> None:
        """Take up the lists of checksums that were fetched."""
        self._lists = lists

    def expected(self, output: str | None, name: str, head: ResponseHead | None) -> Expectation:
        """Return what the file must be: as the task says, and as the head of the first response promised.

        `output`: the name that was asked for; `name`: the one that the file will have.
        Raises: TaskFailed with `checksum`, when a list does not name the file.
        """
        names = list(dict.fromkeys([*names_of(self._urls, output), name])) if self._lists else []
        return expectation(self._options, self._lists, names, promised_by(head))

    def size_complaint(self, size_bytes: int) -> Verdict | None:
        """Say what is wrong with the size of what came, None when nothing is."""
        expected = self._options.size_bytes
        if expected in (None, size_bytes):
            return None
        words = f"the file has {size_bytes} bytes, and should have {expected}"
        return Verdict(code=FailureCode.CHECKSUM, message=words)

    def decide(self, expected: Expectation, findings: Findings, size_bytes: int, sole_source: int | None) -> Outcome:
        """Say what follows from what was found; `sole_source`: which source brought all bytes, if one did so alone."""
        if findings.complaint is None:
            is_asked = self._options.checksums or self._options.pieces
            self.sha256 = next((item.hex for item in expected.checksums if item.algorithm == "sha256"), None)
            return LetPass(note=f"verified: {expected.words()}" if is_asked else None)
        if findings.bad_pieces and self._piece_rounds < MOST_ROUNDS:
            self._piece_rounds += 1
            good = ByteRanges(((0, size_bytes),))
            for start, end in findings.bad_pieces:
                good.remove(start, end)
            note = f"{findings.complaint}; fetching that again"
            return FetchAgain(note=note, kept=good.ranges(), preferred=self._piece_rounds, is_plain=False)
        if sole_source is not None:
            self._tried_alone.add(sole_source)
        untried = [index for index in range(len(self._urls)) if index not in self._tried_alone]
        if untried and self._whole_rounds < len(self._urls):
            self._whole_rounds += 1
            self._tried_alone.add(untried[0])  # even if another one has to answer in its place
            note = f"{findings.complaint}; starting over with one connection"
            return FetchAgain(note=note, kept=(), preferred=untried[0], is_plain=True)
        return Reject(verdict=Verdict(code=FailureCode.CHECKSUM, message=findings.complaint))
