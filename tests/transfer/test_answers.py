"""What each kind of answer of an HTTP server leads to."""

from __future__ import annotations

import email.utils
import gzip
import os
import time
from pathlib import Path

import pytest
from support.misbehaving_server import Case, MisbehavingServer
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.worker_messages import Failed, Finished

BODY = os.urandom(300_000)


def outcome(worker: WorkerHarness, url: str, folder: Path, **fields: object) -> Failed | Finished:
    """Download and return the last report."""
    report = worker.await_end(worker.assign(url, folder, **fields).lease)
    assert isinstance(report, Failed | Finished)
    return report


def failure(worker: WorkerHarness, url: str, folder: Path, **fields: object) -> Failed:
    """Download in vain: nothing may be left in the folder."""
    report = outcome(worker, url, folder, **fields)
    assert isinstance(report, Failed)
    assert report.part is None
    assert list(folder.iterdir()) == []
    return report


def test_a_file_arrives_as_it_is(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    report = outcome(worker, server.serve("/data/file.bin", Case(body=BODY)), folder)
    assert report == Finished(lease=report.lease, dest=str(folder / "file.bin"), size_bytes=len(BODY))
    assert (folder / "file.bin").read_bytes() == BODY
    assert [path.name for path in folder.iterdir()] == ["file.bin"]


def test_an_empty_file_arrives(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    assert isinstance(outcome(worker, server.serve("/empty", Case()), folder), Finished)
    assert (folder / "empty").read_bytes() == b""


def test_a_chunked_file_arrives(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    assert isinstance(outcome(worker, server.serve("/c", Case(body=BODY, chunked=True)), folder), Finished)
    assert (folder / "c").read_bytes() == BODY


def test_an_empty_chunked_file_arrives(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    assert isinstance(outcome(worker, server.serve("/c", Case(chunked=True)), folder), Finished)
    assert (folder / "c").read_bytes() == b""


def test_an_encoded_answer_is_saved_as_it_came(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    packed = gzip.compress(BODY)
    url = server.serve("/z", Case(body=packed, headers=("Content-Encoding: gzip",)))
    assert isinstance(outcome(worker, url, folder), Finished)
    assert (folder / "z").read_bytes() == packed
    assert "accept-encoding" not in server.requests[0].headers


def test_a_redirect_is_followed_and_the_first_url_names_the_file(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    server.serve("/deep/other.bin", Case(body=BODY))
    moved = Case(status="302 Found", headers=("Location: /deep/other.bin",), body=b"moved")
    assert isinstance(outcome(worker, server.serve("/first.bin", moved), folder), Finished)
    assert (folder / "first.bin").read_bytes() == BODY


def test_a_redirect_names_the_file_when_the_first_url_does_not(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    server.serve("/deep/other.bin", Case(body=BODY))
    moved = Case(status="302 Found", headers=("Location: /deep/other.bin",))
    assert isinstance(outcome(worker, server.serve("/", moved), folder), Finished)
    assert (folder / "other.bin").read_bytes() == BODY


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("404 Not Found", FailureCode.REMOTE_MISSING),
        ("410 Gone", FailureCode.REMOTE_MISSING),
        ("401 Unauthorized", FailureCode.AUTHENTICATION),
        ("403 Forbidden", FailureCode.AUTHENTICATION),
        ("418 Teapot", FailureCode.HTTP_ERROR),
        ("501 Not Implemented", FailureCode.HTTP_ERROR),
        ("500 Internal Server Error", FailureCode.SERVER_BUSY),
        ("503 Service Unavailable", FailureCode.SERVER_BUSY),
        ("429 Too Many Requests", FailureCode.SERVER_BUSY),
        ("304 Not Modified", FailureCode.REDIRECT),
        ("302 Found", FailureCode.REDIRECT),
        ("204 No Content", FailureCode.HTTP_ERROR),
        ("206 Partial Content", FailureCode.HTTP_ERROR),
        ("205 Reset Content", FailureCode.HTTP_ERROR),
    ],
)
def test_an_error_page_is_never_saved(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, status: str, code: FailureCode
) -> None:
    body = b"" if status[:3] in ("204", "304") else b"<h1>no</h1>"
    report = failure(worker, server.serve("/f", Case(status=status, body=body)), folder)
    assert report.code is code
    assert report.http_status == int(status[:3])
    assert status[:3] in report.message or status.startswith("206")


def test_a_huge_error_page_is_not_read_to_its_end(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    page = Case(status="500 Oops", body=bytes(50_000_000))
    report = failure(worker, server.serve("/f", page), folder)
    assert (report.code, report.bytes_received) == (FailureCode.SERVER_BUSY, 0)
    assert server.broken.acquire(timeout=30)


def test_retry_after_is_passed_on_in_seconds(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    busy = Case(status="503 Busy", headers=("Retry-After: 120",))
    assert failure(worker, server.serve("/f", busy), folder).retry_after_s == 120.0


def test_retry_after_is_passed_on_from_a_date(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    date = email.utils.formatdate(time.time() + 1000, usegmt=True)
    busy = Case(status="429 Slow Down", headers=(f"Retry-After: {date}",))
    retry_after_s = failure(worker, server.serve("/f", busy), folder).retry_after_s
    assert retry_after_s is not None
    assert 0 < retry_after_s <= 1000


def test_a_body_shorter_than_announced_is_truncated(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    url = server.serve("/f", Case(body=BODY, cut_after=1000))
    assert failure(worker, url, folder).code is FailureCode.TRUNCATED


def test_a_chunked_body_without_its_end_is_truncated(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    url = server.serve("/f", Case(body=BODY, chunked=True, cut_after=50_000))
    assert failure(worker, url, folder).code is FailureCode.TRUNCATED


def test_a_connection_that_is_reset_is_a_network_failure(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    url = server.serve("/f", Case(body=BODY, cut_after=1000, reset=True))
    assert failure(worker, url, folder).code in (FailureCode.NETWORK, FailureCode.TRUNCATED)


def test_a_redirect_loop_fails(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    url = server.serve("/loop", Case(status="302 Found", headers=("Location: /loop",)))
    assert failure(worker, url, folder).code is FailureCode.REDIRECT
    assert len(server.requests) == 6


@pytest.mark.parametrize("target", ["file:///etc/passwd", "sftp://127.0.0.1/x", "gopher://h/"])
def test_a_redirect_to_another_protocol_fails(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, target: str
) -> None:
    url = server.serve("/f", Case(status="301 Moved", headers=(f"Location: {target}",)))
    assert failure(worker, url, folder).code is FailureCode.REDIRECT


def test_a_server_that_sends_nothing_has_stalled(
    server: MisbehavingServer, start_worker: type[WorkerHarness], folder: Path
) -> None:
    worker = start_worker(stall_timeout_s=1.0, connect_timeout_s=5.0)
    url = server.serve("/f", Case(body=BODY, hold_after=1000))
    assert failure(worker, url, folder).code is FailureCode.STALLED


def test_an_error_page_that_never_ends_does_not_hold_the_worker(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    url = server.serve("/f", Case(status="404 Not Found", body=BODY, hold_after=10))
    assert failure(worker, url, folder).code is FailureCode.REMOTE_MISSING


def test_what_is_not_http_is_refused(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    url = server.serve("/f", Case(raw=b"SSH-2.0-OpenSSH_9.2\r\n"))
    assert failure(worker, url, folder).code is FailureCode.PROTOCOL


def test_an_endless_head_is_refused(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    raw = b"HTTP/1.1 200 OK\r\n" + b"X-Filler: 0123456789abcdef\r\n" * 40_000 + b"Content-Length: 2\r\n\r\nok"
    assert isinstance(outcome(worker, server.serve("/f", Case(raw=raw)), folder), Failed)


def test_a_connection_that_is_refused_says_so(worker: WorkerHarness, folder: Path) -> None:
    report = failure(worker, "http://127.0.0.1:9/f", folder)
    assert report.code is FailureCode.CONNECT
    assert report.message == "could not connect to 127.0.0.1 port 9: Connection refused"


def test_a_host_name_that_does_not_exist_says_so(worker: WorkerHarness, folder: Path) -> None:
    report = failure(worker, "http://no-such-host.invalid/f", folder)
    assert report.code is FailureCode.NAME_RESOLUTION
    assert "no-such-host.invalid" in report.message


def test_secrets_are_in_no_message(worker: WorkerHarness, folder: Path) -> None:
    report = failure(worker, "http://alice:hunter2@127.0.0.1:9/f?token=hunter2", folder)
    assert "hunter2" not in report.message


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://127.0.0.1/", "http://127.0.0.1:99999/", "http://"])
def test_a_url_that_slipped_through_is_refused(worker: WorkerHarness, folder: Path, url: str) -> None:
    assert failure(worker, url, folder).code is FailureCode.BAD_URL


def test_headers_of_the_task_are_sent(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    url = server.serve("/f", Case(body=BODY))
    outcome(worker, url, folder, headers=("X-Key: a b", "Cookie: c=d"))
    outcome(worker, url, folder)
    assert server.requests[0].headers["x-key"] == "a b"
    assert server.requests[0].headers["cookie"] == "c=d"
    assert "x-key" not in server.requests[1].headers


def test_a_header_with_a_line_break_is_refused(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    url = server.serve("/f", Case(body=BODY))
    failure(worker, url, folder, headers=("X-Key: a\r\nHost: evil",))
    assert server.requests == []


def test_authorization_is_not_sent_to_another_host(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    with MisbehavingServer() as other:
        target = other.serve("/f", Case(body=BODY)).replace("127.0.0.1", "localhost")
        url = server.serve("/f", Case(status="302 Found", headers=(f"Location: {target}",)))
        report = outcome(worker, url, folder, headers=("Authorization: Basic c2VjcmV0", "Cookie: c=secret"))
        assert isinstance(report, Finished)
        assert server.requests[0].headers["authorization"] == "Basic c2VjcmV0"
        assert "authorization" not in other.requests[0].headers
        assert "cookie" not in other.requests[0].headers


def test_a_password_of_one_url_is_not_sent_for_the_next(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path
) -> None:
    url = server.serve("/f", Case(body=BODY))
    outcome(worker, url.replace("//", "//alice:secret@"), folder)
    outcome(worker, url, folder)
    assert "authorization" in server.requests[0].headers
    assert "authorization" not in server.requests[1].headers


def test_connections_stay_warm_between_tasks(server: MisbehavingServer, worker: WorkerHarness, folder: Path) -> None:
    url = server.serve("/f", Case(body=b"x"))
    for _ in range(5):
        outcome(worker, url, folder)
    assert server.connections == 1


def test_the_user_agent_is_ours_or_as_configured(
    server: MisbehavingServer, start_worker: type[WorkerHarness], folder: Path
) -> None:
    url = server.serve("/f", Case(body=b"x"))
    outcome(start_worker(), url, folder)
    outcome(start_worker(user_agent="Agent/7"), url, folder)
    assert server.requests[0].headers["user-agent"].startswith("autodl/")
    assert server.requests[1].headers["user-agent"] == "Agent/7"
