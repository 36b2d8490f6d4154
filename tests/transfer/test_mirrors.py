"""Several sources of one file: used side by side where they agree, left out where they don't."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from behaviour import BIG, GOOD, LOGIN, OTHER_BIG, OTHER_DATE, SMALL, TINY
from support.misbehaving_cases import Case
from support.misbehaving_server import MisbehavingServer
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.contract.worker_messages import Failed, Finished, Report

DEAD = "http://127.0.0.1:9/f"


@pytest.fixture
def mirror() -> Iterator[MisbehavingServer]:
    """A second server."""
    with MisbehavingServer() as running:
        yield running


@pytest.fixture
def worker(start_worker: Callable[..., WorkerHarness]) -> WorkerHarness:
    """A worker that does not wait long for the dead."""
    return start_worker(connections=8, stall_timeout_s=10.0, connect_timeout_s=5.0)


def fetch(worker: WorkerHarness, folder: Path, *urls: str, granted: int = 4) -> Report:
    """Download from the first URL and its mirrors."""
    options = TransferOptions(mirrors=urls[1:])
    return worker.await_end(worker.assign(urls[0], folder, connections=(granted,) * len(urls), options=options).lease)


def test_mirrors_that_agree_are_used_at_once(
    server: MisbehavingServer, mirror: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    urls = (server.serve("/f", GOOD), mirror.serve("/g", GOOD))
    assert isinstance(fetch(worker, folder, *urls), Finished)
    assert (folder / "f").read_bytes() == BIG
    assert [path.name for path in folder.iterdir()] == ["f"]
    assert mirror.sent_bytes > 0
    assert all(seen.range is not None for seen in mirror.requests)
    assert server.most_connections <= 4
    assert mirror.most_connections <= 4


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (GOOD, replace(GOOD, body=OTHER_BIG, etag='"v2"', last_modified=OTHER_DATE)),
        (GOOD, replace(GOOD, body=OTHER_BIG + b"more")),
        (GOOD, replace(GOOD, body=OTHER_BIG[:-1], etag='"v2"')),
        (replace(GOOD, etag=None), replace(GOOD, etag=None, body=OTHER_BIG, last_modified=OTHER_DATE)),
        (GOOD, replace(GOOD, body=OTHER_BIG, etag='"v2"', last_modified=OTHER_DATE, check_if_range=False)),
    ],
    ids=["ETag and date", "longer", "shorter", "date", "ETag and date, If-Range ignored"],
)
def test_a_mirror_of_another_version_is_left_out(
    server: MisbehavingServer,
    mirror: MisbehavingServer,
    worker: WorkerHarness,
    folder: Path,
    first: Case,
    second: Case,
) -> None:
    urls = (server.serve("/f", first), mirror.serve("/f", second))
    assert isinstance(fetch(worker, folder, *urls), Finished)
    assert (folder / "f").read_bytes() == BIG
    assert len(mirror.requests) <= 4


@pytest.mark.parametrize(
    "second",
    [
        replace(LOGIN, status="404 Not Found"),
        replace(LOGIN, status="503 Busy"),
        LOGIN,
        replace(GOOD, ranges=False),
        replace(GOOD, hang_after=1000),
        replace(GOOD, rate_bps=1000),
        replace(GOOD, raw=b"", reset=True),
        replace(GOOD, raw=b"", hang_after=0),
    ],
    ids=["404", "503", "log-in page", "no ranges", "hangs", "crawls", "resets", "never answers"],
)
def test_a_bad_mirror_does_no_harm(
    server: MisbehavingServer, mirror: MisbehavingServer, worker: WorkerHarness, folder: Path, second: Case
) -> None:
    urls = (server.serve("/f", GOOD), mirror.serve("/f", second))
    assert isinstance(fetch(worker, folder, *urls), Finished)
    assert (folder / "f").read_bytes() == BIG


def test_a_mirror_that_refuses_connections_does_no_harm(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    assert isinstance(fetch(worker, folder, server.serve("/f", GOOD), DEAD), Finished)
    assert (folder / "f").read_bytes() == BIG


@pytest.mark.parametrize(
    "first",
    [
        replace(LOGIN, status="404 Not Found"),
        replace(LOGIN, status="403 Forbidden"),
        replace(LOGIN, status="503 Busy"),
        Case(raw=b"", reset=True),
        Case(raw=b"SSH-2.0-OpenSSH_9.2\r\n"),
        Case(status="302 Found", headers=("Location: /f",)),
    ],
    ids=["404", "403", "503", "reset", "no HTTP", "redirect loop"],
)
def test_where_the_first_source_fails_a_mirror_serves(
    server: MisbehavingServer, mirror: MisbehavingServer, worker: WorkerHarness, folder: Path, first: Case
) -> None:
    assert isinstance(fetch(worker, folder, server.serve("/f", first), mirror.serve("/f", TINY)), Finished)
    assert (folder / "f").read_bytes() == SMALL


def test_where_the_first_source_refuses_connections_a_mirror_serves(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    assert isinstance(fetch(worker, folder, DEAD, server.serve("/f", TINY)), Finished)
    assert (folder / "f").read_bytes() == SMALL


def test_where_the_first_source_dies_in_the_middle_the_mirror_goes_on(
    server: MisbehavingServer, mirror: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    dies = (replace(GOOD, cut_after=1_000_000), replace(LOGIN, status="503 Busy"))
    urls = (server.serve("/f", *dies), mirror.serve("/f", GOOD))
    assert isinstance(fetch(worker, folder, *urls, granted=1), Finished)
    assert (folder / "f").read_bytes() == BIG


def test_the_name_is_that_of_the_task_s_url_whoever_serves_it(
    server: MisbehavingServer, mirror: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    gone = server.serve("/wanted.iso", Case(status="404 Not Found"))
    for first in (gone, "http://127.0.0.1:9/wanted.iso"):
        done = fetch(worker, folder, first, mirror.serve("/other-name.bin", Case(body=SMALL)))
        assert isinstance(done, Finished)
    assert sorted(path.name for path in folder.iterdir()) == ["wanted.1.iso", "wanted.iso"]


def test_where_all_sources_fail_the_task_does(
    server: MisbehavingServer, mirror: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    missing = replace(LOGIN, status="404 Not Found")
    report = fetch(worker, folder, server.serve("/f", missing), mirror.serve("/f", missing))
    assert isinstance(report, Failed)
    assert report.code is FailureCode.REMOTE_MISSING
    assert list(folder.iterdir()) == []
    assert server.requests
    assert mirror.requests


def test_where_one_source_may_come_back_the_failure_may_pass(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    report = fetch(worker, folder, server.serve("/f", replace(LOGIN, status="404 Not Found")), DEAD)
    assert isinstance(report, Failed)
    assert (report.code, report.source) == (FailureCode.CONNECT, 1)


def test_a_task_of_two_versions_never_mixes_them_over_attempts(
    server: MisbehavingServer, mirror: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    other = replace(GOOD, body=OTHER_BIG, etag='"v2"', last_modified=OTHER_DATE)
    urls = (server.serve("/f", replace(GOOD, cut_after=900_000)), mirror.serve("/f", replace(other, cut_after=900_000)))
    name = part = None
    for _ in range(12):
        options = TransferOptions(mirrors=urls[1:])
        assign = worker.assign(urls[0], folder, tag="two", name=name, part=part, connections=(2, 2), options=options)
        report = worker.await_end(assign.lease)
        if isinstance(report, Finished):
            break
        assert isinstance(report, Failed)
        name, part = ("f" if report.part else name), report.part
    final = folder / "f"
    assert not final.exists() or final.read_bytes() in (BIG, OTHER_BIG)
