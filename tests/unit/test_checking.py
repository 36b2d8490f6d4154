"""What a file must be: what the task, its lists and the response say is put together, and the file is compared."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.assignments import assignment

from autodl_lib.contract.checksums import Checksum
from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import PieceHashes, TransferOptions
from autodl_lib.worker.checks import MOST_ROUNDS, Checks, FetchAgain, Reject
from autodl_lib.worker.files.checking import (
    ChecksumList,
    Expectation,
    Findings,
    Verification,
    expectation,
    list_urls,
    names_of,
    promised_by,
)
from autodl_lib.worker.files.hashing import never
from autodl_lib.worker.network.response_head import ResponseHead
from autodl_lib.worker.network.verdicts import TaskFailed

PIECE = 1024
CONTENT = os.urandom(5 * PIECE + 100)
LIST_URL = "https://a.example/SHA256SUMS"


def checksum(algorithm: str = "sha256", content: bytes = CONTENT) -> Checksum:
    """Make a checksum."""
    return Checksum(algorithm=algorithm, hex=hashlib.new(algorithm, content).hexdigest())


def written(algorithm: str = "sha256", content: bytes = CONTENT) -> str:
    """Write a checksum as people do."""
    return f"{algorithm}={checksum(algorithm, content).hex}"


def list_of(*lines: str, url: str = LIST_URL) -> ChecksumList:
    """Make a list."""
    return ChecksumList(url=url, content="".join(f"{line}\n" for line in lines))


def line(name: str, content: bytes = CONTENT) -> str:
    """Write a line of a list."""
    return f"{checksum(content=content).hex}  {name}"


def expected(
    *checksums: str, lists: tuple[ChecksumList, ...] = (), names: tuple[str, ...] = ("f",), promised: str | None = None
) -> Expectation:
    """Put an expectation together."""
    of_head = () if promised is None else (checksum(promised),)
    return expectation(TransferOptions(checksums=checksums), lists, names, of_head)


# --- lists, and the file's name in them ---


def test_only_lists_are_fetched() -> None:
    options = TransferOptions(checksums=(LIST_URL, written(), "http://b.example/f.md5", written("md5")))
    assert list_urls(options) == [LIST_URL, "http://b.example/f.md5"]


@pytest.mark.parametrize(
    ("urls", "output", "names"),
    [
        (["http://a.example/dir/f.iso"], None, ["f.iso"]),
        (["http://a.example/dir/f.iso"], "mine.iso", ["mine.iso", "f.iso"]),
        (["http://a.example/f.iso"], "f.iso", ["f.iso"]),
        (["http://a.example/f.iso?token=a/b#c/d"], None, ["f.iso"]),
        (["http://a.example/f.iso#c?d/e"], None, ["f.iso"]),
        (["http://a.example/a%20b"], None, ["a b", "a%20b"]),
        (["http://a.example/get?id=7", "http://b.example/f.iso"], None, ["get", "f.iso"]),
        (["http://a.example/dir/"], None, []),
        (["http://a.example/dir/"], "mine", ["mine"]),
        (["http://a.example"], None, []),
        (["http://a.example?f=g"], None, []),
        (["ftp://a.example/f.iso;type=i"], None, ["f.iso"]),
        (["http://a.example/f;type=i"], None, ["f;type=i"]),
    ],
)
def test_the_names_of_a_file_in_a_list_are_its_own_and_those_of_its_urls(
    urls: list[str], output: str | None, names: list[str]
) -> None:
    assert names_of(urls, output) == names


# --- what is expected ---


def test_where_nothing_is_said_nothing_is_checked() -> None:
    assert expected().is_empty()
    assert not expected(written()).is_empty()
    assert not expected(promised="md5").is_empty()


def test_everything_that_is_said_is_expected_and_nothing_twice() -> None:
    found = expected(written(), written("md5"), lists=(list_of(line("f")),), promised="sha512")
    assert found.checksums == (checksum(), checksum("md5"), checksum("sha512"))
    assert found.words() == "sha256, md5, sha512"


def test_words_that_contradict_each_other_are_all_expected() -> None:
    found = expected(written(), lists=(list_of(line("f", b"other")),))
    assert found.checksums == (checksum(), checksum(content=b"other"))


def test_every_list_must_name_the_file() -> None:
    good, bad = list_of(line("f")), list_of(line("g"), url="http://b.example/list")
    with pytest.raises(TaskFailed, match=r"http://b.example/list has no checksum of f") as failed:
        expected(lists=(good, bad))
    assert failed.value.verdict.code is FailureCode.CHECKSUM


@pytest.mark.parametrize("content", ["", "<html>404</html>", line("f") + "\n" + line("f", b"other"), "\0" * 5000])
def test_a_list_that_says_nothing_clear_is_a_failure(content: str) -> None:
    with pytest.raises(TaskFailed) as failed:
        expected(lists=(ChecksumList(url=LIST_URL, content=content),))
    assert failed.value.verdict.code is FailureCode.CHECKSUM


def test_a_file_without_any_name_is_not_in_a_list_of_several() -> None:
    with pytest.raises(TaskFailed, match="has no checksum of the file,"):
        expected(lists=(list_of(line("f"), line("g")),), names=())


def test_a_checksum_that_is_not_understood_is_a_failure_and_not_passed_over() -> None:
    for text in ("sha256=", "sha256=abc", "nonsense", "crc32=00000000"):
        with pytest.raises(TaskFailed) as failed:
            expected(text)
        assert failed.value.verdict.code is FailureCode.CHECKSUM


def test_words_name_the_pieces_too() -> None:
    pieces = pieces_of(CONTENT)
    assert Expectation(checksums=(), pieces=pieces).words() == "the checksums of its pieces"
    assert not Expectation(checksums=(), pieces=pieces).is_empty()
    assert expectation(TransferOptions(pieces=pieces), (), (), ()).pieces is pieces


# --- what the response promises ---


def head(status: int, **fields: str) -> ResponseHead:
    """Make a response's head."""
    return ResponseHead(status=status, fields={name.replace("_", "-"): value for name, value in fields.items()})


def encoded(algorithm: str) -> str:
    """Write a checksum as header fields do."""
    return base64.b64encode(hashlib.new(algorithm, CONTENT).digest()).decode()


def test_without_a_head_nothing_is_promised() -> None:
    assert promised_by(None) == ()
    assert promised_by(head(200)) == ()


def test_what_a_whole_answer_says_of_itself_is_a_promise_of_the_file() -> None:
    assert promised_by(head(200, content_digest=f"sha-256=:{encoded('sha256')}:")) == (checksum(),)
    assert promised_by(head(200, content_md5=encoded("md5"))) == (checksum("md5"),)


def test_what_a_part_says_of_itself_is_no_promise_of_the_file() -> None:
    assert promised_by(head(206, content_digest=f"sha-256=:{encoded('sha256')}:")) == ()
    assert promised_by(head(206, content_md5=encoded("md5"))) == ()
    assert promised_by(head(206, repr_digest=f"sha-256=:{encoded('sha256')}:")) == (checksum(),)


def test_what_old_fields_say_of_a_packed_answer_is_no_promise_of_what_is_stored() -> None:
    assert promised_by(head(200, content_md5=encoded("md5"), content_encoding="gzip")) == ()


# --- the comparison ---


def pieces_of(content: bytes) -> PieceHashes:
    """Make the checksums of a file's pieces."""
    digests = [hashlib.sha256(content[start : start + PIECE]).hexdigest() for start in range(0, len(content), PIECE)]
    return PieceHashes(algorithm="sha256", length_bytes=PIECE, digests=tuple(digests))


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """A part file with CONTENT."""
    (tmp_path / "part").write_bytes(CONTENT)
    fd = os.open(tmp_path / "part", os.O_RDWR)
    yield fd
    os.close(fd)


def verified(fd: int, *checksums: Checksum, pieces: PieceHashes | None = None) -> Verification:
    """Look at a file."""
    look = Verification(fd, len(CONTENT), Expectation(checksums=checksums, pieces=pieces), never)
    look.run()
    return look


def flip(fd: int, *offsets: int) -> None:
    """Spoil bytes."""
    for offset in offsets:
        os.pwrite(fd, bytes([CONTENT[offset] ^ 1]), offset)


def test_the_right_file_has_no_complaint(fd: int) -> None:
    look = verified(fd, checksum(), checksum("md5"), pieces=pieces_of(CONTENT))
    assert look.failure is None
    assert look.findings is not None
    assert look.findings.complaint is None
    assert look.findings.bad_pieces == ()


@pytest.mark.parametrize("offset", [0, 1, PIECE, len(CONTENT) - 1])
def test_one_wrong_bit_is_found_wherever_it_is(fd: int, offset: int) -> None:
    flip(fd, offset)
    for pieces in (None, pieces_of(CONTENT)):
        look = verified(fd, checksum(), pieces=pieces)
        assert look.findings is not None
        assert look.findings.complaint
        assert bool(look.findings.bad_pieces) == (pieces is not None)


def test_bad_pieces_are_told_as_ranges_of_the_file(fd: int) -> None:
    flip(fd, PIECE, 2 * PIECE, len(CONTENT) - 1)
    findings = verified(fd, pieces=pieces_of(CONTENT)).findings
    assert findings is not None
    assert findings.bad_pieces == ((PIECE, 3 * PIECE), (5 * PIECE, len(CONTENT)))
    assert findings.complaint == "the bytes from 1024 to 3072 do not have the checksum of their piece"


def test_where_all_pieces_are_right_the_whole_is_still_compared(fd: int) -> None:
    findings = verified(fd, checksum(content=b"other"), pieces=pieces_of(CONTENT)).findings
    assert findings is not None
    assert findings.bad_pieces == ()
    assert findings.complaint is not None
    assert checksum().hex in findings.complaint
    assert checksum(content=b"other").hex in findings.complaint


def test_each_of_several_checksums_counts(fd: int) -> None:
    for wrong in range(3):
        wanted = [checksum(name, b"other" if index == wrong else CONTENT) for index, name in enumerate(ALGORITHMS)]
        findings = verified(fd, *wanted).findings
        assert findings is not None
        assert wanted[wrong].hex in (findings.complaint or "")


ALGORITHMS = ("md5", "sha1", "sha512")


def test_two_checksums_of_one_algorithm_both_count(fd: int) -> None:
    for wanted in ((CONTENT, b"other"), (b"other", CONTENT)):
        findings = verified(fd, *[checksum(content=content) for content in wanted]).findings
        assert findings is not None
        assert findings.complaint is not None


def test_pieces_of_another_file_are_a_failure_and_no_finding(fd: int) -> None:
    look = verified(fd, checksum(), pieces=pieces_of(CONTENT + b"x" * PIECE))
    assert look.findings is None
    assert look.failure is not None
    assert look.failure.code is FailureCode.CHECKSUM


def test_what_is_stopped_has_found_nothing(fd: int) -> None:
    for pieces in (None, pieces_of(CONTENT)):
        look = Verification(fd, len(CONTENT), Expectation(checksums=(checksum(),), pieces=pieces), lambda: True)
        look.run()
        assert look.findings is None
        assert look.failure is None


def test_a_file_that_is_shorter_than_it_was_said_to_be_never_passes(fd: int) -> None:
    os.ftruncate(fd, len(CONTENT) - 1)
    for pieces in (None, pieces_of(CONTENT)):
        look = Verification(fd, len(CONTENT), Expectation(checksums=(checksum(),), pieces=pieces), never)
        with pytest.raises(OSError, match="the file ends after"):
            look.run()
        assert look.findings is None


def test_where_pieces_stay_wrong_each_source_is_asked_for_the_whole_in_the_end() -> None:
    urls = ("http://a/f", "http://b/f", "http://c/f")
    pieces = PieceHashes(algorithm="sha256", length_bytes=PIECE, digests=("0" * 64,) * 6)
    options = TransferOptions(mirrors=urls[1:], pieces=pieces)
    checks = Checks(assignment(urls[0], "/d", options=options))
    wrong = Findings(bad_pieces=((0, PIECE),), complaint="a piece is wrong")
    outcomes = [checks.decide(Expectation(checksums=(), pieces=pieces), wrong, len(CONTENT), None) for _ in range(7)]
    again = [outcome for outcome in outcomes if isinstance(outcome, FetchAgain)]
    assert [outcome.is_plain for outcome in again] == [False] * MOST_ROUNDS + [True] * len(urls)
    assert [outcome.preferred for outcome in again[MOST_ROUNDS:]] == [0, 1, 2]
    assert isinstance(outcomes[-1], Reject)
