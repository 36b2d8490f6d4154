"""What a file must hash to: nothing that doesn't is published, and a bad piece alone is fetched again."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from behaviour import BIG, BIG_BYTES, GOOD, OTHER_SMALL, SMALL, TINY
from support.misbehaving_cases import Case
from support.misbehaving_server import MisbehavingServer
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import PieceHashes, TransferOptions
from autodl_lib.contract.worker_messages import Failed, Finished, Ready, Report

PIECE_BYTES = 256 * 1024
BAD = bytearray(BIG)
BAD[3 * PIECE_BYTES + 5] ^= 1
GOOD_UNLIMITED = replace(GOOD, rate_bps=None)


def hexadecimal(algorithm: str, body: bytes = SMALL) -> str:
    """Return a checksum as people write it."""
    return hashlib.new(algorithm, body).hexdigest()


def encoded(algorithm: str, body: bytes = SMALL) -> str:
    """Return a checksum as header fields have it."""
    return base64.b64encode(hashlib.new(algorithm, body).digest()).decode()


def fetch(worker: WorkerHarness, url: str, folder: Path, *checksums: str) -> Report:
    """Download a file that must have these checksums."""
    return worker.await_end(worker.assign(url, folder, options=TransferOptions(checksums=checksums)).lease)


def refused(report: Report, folder: Path) -> Failed:
    """Check that nothing was published for the checksum's sake."""
    assert isinstance(report, Failed)
    assert report.code is FailureCode.CHECKSUM
    assert report.http_status in (200, 206)
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == []
    return report


# --- the whole file ---


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512", "sha3_256", "blake2b"])
def test_a_right_checksum_is_found_right(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, algorithm: str
) -> None:
    checksum = f"{algorithm}={hexadecimal(algorithm)}"
    assert isinstance(fetch(worker, server.serve("/f", TINY), folder, checksum), Finished)
    assert (folder / "f").read_bytes() == SMALL


def test_a_wrong_checksum_says_both_values(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    wanted = hexadecimal("sha256", OTHER_SMALL)
    report = refused(fetch(worker, server.serve("/f", TINY), folder, f"sha256={wanted}"), folder)
    assert wanted in report.message
    assert hexadecimal("sha256") in report.message


def test_capital_letters_are_the_same_checksum(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    checksum = f"SHA256={hexadecimal('sha256').upper()}"
    assert isinstance(fetch(worker, server.serve("/f", TINY), folder, checksum), Finished)


def test_all_checksums_must_be_right(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    checksums = (f"sha256={hexadecimal('sha256')}", f"md5={hexadecimal('md5', OTHER_SMALL)}")
    refused(fetch(worker, server.serve("/f", TINY), folder, *checksums), folder)


def test_an_empty_file_has_a_checksum_too(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    url = server.serve("/f", replace(TINY, body=b""))
    refused(fetch(worker, url, folder, f"sha256={hexadecimal('sha256')}"), folder)
    assert isinstance(fetch(worker, url, folder, f"sha256={hexadecimal('sha256', b'')}"), Finished)


def test_a_file_of_several_connections_is_checked(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    for body, outcome in ((bytes(BAD), Failed), (BIG, Finished)):
        url = server.serve("/f", replace(GOOD, body=body))
        options = TransferOptions(checksums=(f"sha256={hexadecimal('sha256', BIG)}",))
        report = worker.await_end(worker.assign(url, folder, connections=(4,), options=options).lease)
        assert isinstance(report, outcome)
        assert (folder / "f").exists() == (outcome is Finished)
    assert (folder / "f").read_bytes() == BIG


def test_a_size_that_must_be_is_checked(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    for size_bytes, outcome in ((len(SMALL) + 1, Failed), (len(SMALL), Finished)):
        options = TransferOptions(size_bytes=size_bytes)
        report = worker.await_end(worker.assign(server.serve("/f", TINY), folder, options=options).lease)
        assert isinstance(report, outcome)
        assert (folder / "f").exists() == (outcome is Finished)


# --- lists ---


def list_of(**bodies: bytes) -> bytes:
    """Return a list as sha256sum writes it."""
    return "".join(f"{hexadecimal('sha256', body)}  {name}\n" for name, body in bodies.items()).encode()


def test_a_list_has_the_files_checksum(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    url = server.serve("/f", TINY)
    sums = server.serve("/SHA256SUMS", Case(body=list_of(other=OTHER_SMALL, f=SMALL)))
    assert isinstance(fetch(worker, url, folder, sums), Finished)
    assert [path.name for path in folder.iterdir()] == ["f"]


def test_a_list_has_another_checksum_for_the_file(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    url = server.serve("/f", TINY)
    sums = server.serve("/SHA256SUMS", Case(body=list_of(f=OTHER_SMALL, other=SMALL)))
    report = refused(fetch(worker, url, folder, sums), folder)
    assert hexadecimal("sha256", OTHER_SMALL) in report.message


@pytest.mark.parametrize(
    "case",
    [
        Case(body=list_of(other=SMALL)),
        Case(status="404 Not Found"),
        Case(body=b"<html>no list</html>"),
        Case(body=b""),
        Case(body=b"f" * 50_000_000),
    ],
    ids=["without the file", "404", "a page", "empty", "huge"],
)
def test_a_list_that_does_not_have_the_file_checks_nothing_so_nothing_is_published(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, case: Case
) -> None:
    report = fetch(worker, server.serve("/f", TINY), folder, server.serve("/SHA256SUMS", case))
    assert isinstance(report, Failed)
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == []


def test_a_lists_file_is_the_clients_to_read_and_checks_nothing_here(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, tmp_path: Path
) -> None:
    sums = tmp_path / "SHA256SUMS"
    sums.write_bytes(list_of(f=SMALL))
    report = fetch(worker, server.serve("/f", TINY), folder, str(sums))
    assert isinstance(report, Failed)
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == []


# --- what the server itself says ---


def said(body: bytes) -> tuple[str, ...]:
    """Return all fields that can say what a body hashes to."""
    return (
        f"Repr-Digest: sha-256=:{encoded('sha256', body)}:",
        f"Content-Digest: sha-256=:{encoded('sha256', body)}:",
        f"Repr-Digest: klingon=:abcd:, sha-512=:{encoded('sha512', body)}:",
        f"Digest: SHA-256={encoded('sha256', body)}",
        f"Content-MD5: {encoded('md5', body)}",
    )


FIELDS = ["Repr-Digest", "Content-Digest", "one of two", "Digest", "Content-MD5"]


@pytest.mark.parametrize("field", said(SMALL), ids=FIELDS)
def test_a_digest_of_the_server_that_is_right_is_found_right(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, field: str
) -> None:
    url = server.serve("/f", replace(TINY, headers=(field,)))
    assert isinstance(fetch(worker, url, folder), Finished)


@pytest.mark.parametrize("field", said(OTHER_SMALL), ids=FIELDS)
def test_a_digest_of_the_server_that_is_wrong_is_a_failure(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, field: str
) -> None:
    refused(fetch(worker, server.serve("/f", replace(TINY, headers=(field,))), folder), folder)


@pytest.mark.parametrize(
    "field",
    [
        "Repr-Digest: klingon=:abcd:",
        "Repr-Digest: sha-256=abcd",
        "Repr-Digest: sha-256=:no base64!:",
        "Repr-Digest: ",
        "Digest: SHA-256=",
        "Digest: UNIXsum=30637",
        "Content-MD5: short",
    ],
)
def test_a_digest_of_the_server_that_says_nothing_is_left_aside(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, field: str
) -> None:
    url = server.serve("/f", replace(TINY, headers=(field,)))
    assert isinstance(fetch(worker, url, folder), Finished)
    assert (folder / "f").read_bytes() == SMALL


def test_a_digest_of_a_log_in_page_that_redirects_is_not_the_files(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    server.serve("/g", TINY)
    moved = Case(status="302 Found", headers=("Location: /g", f"Repr-Digest: sha-256=:{encoded('sha256', b'x')}:"))
    assert isinstance(fetch(worker, server.serve("/f", moved), folder), Finished)


# --- pieces ---


def pieces(body: bytes = BIG) -> PieceHashes:
    """Return the checksums of a body's pieces."""
    starts = range(0, len(body), PIECE_BYTES)
    digests = tuple(hexadecimal("sha256", body[start : start + PIECE_BYTES]) for start in starts)
    return PieceHashes(algorithm="sha256", length_bytes=PIECE_BYTES, digests=digests)


@pytest.mark.parametrize("granted", [1, 4])
def test_a_bad_piece_alone_is_fetched_again(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, granted: int
) -> None:
    url = server.serve("/f", replace(GOOD_UNLIMITED, body=bytes(BAD)), GOOD_UNLIMITED)
    assign = worker.assign(url, folder, connections=(granted,), options=TransferOptions(pieces=pieces()))
    assert isinstance(worker.await_end(assign.lease), Finished)
    assert (folder / "f").read_bytes() == BIG
    again = [bounds for seen in server.requests[1:] for bounds in seen.wanted(BIG_BYTES) or [(0, BIG_BYTES)]]
    bad = [bounds for bounds in again if 3 * PIECE_BYTES <= bounds[0] <= bounds[1] < 4 * PIECE_BYTES]
    assert bad
    # With more connections than one, some may have been opened for the first round, too.
    assert bad == again or granted > 1
    assert worker.await_report(Ready, assign.lease).bytes_received <= BIG_BYTES + 2 * PIECE_BYTES


def test_a_piece_that_stays_bad_is_a_failure(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    url = server.serve("/f", replace(GOOD_UNLIMITED, body=bytes(BAD)))
    refused(worker.await_end(worker.assign(url, folder, options=TransferOptions(pieces=pieces())).lease), folder)
    assert len(server.requests) < 20


def test_a_mirror_replaces_the_bad_piece(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    with MisbehavingServer() as mirror:
        url = server.serve("/f", replace(GOOD_UNLIMITED, body=bytes(BAD)))
        options = TransferOptions(pieces=pieces(), mirrors=(mirror.serve("/f", GOOD_UNLIMITED),))
        assign = worker.assign(url, folder, connections=(1, 1), options=options)
        assert isinstance(worker.await_end(assign.lease), Finished)
    assert (folder / "f").read_bytes() == BIG


def test_pieces_of_another_size_of_file_are_a_failure(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    options = TransferOptions(pieces=pieces(BIG[:-PIECE_BYTES]))
    report = worker.await_end(worker.assign(server.serve("/f", GOOD_UNLIMITED), folder, options=options).lease)
    assert isinstance(report, Failed)
    assert list(folder.glob("[!.]*")) == []
