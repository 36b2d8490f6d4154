"""Logins to a real Apache httpd: passwords, ~/.netrc, cookies; and that they stay with the host they are for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from outcomes import arrival, failure, outcome
from support.apache import PASSWORD, USER, Apache
from support.misbehaving_server import Case, MisbehavingServer
from support.server_process import running
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.worker_messages import Failed, Finished

BODY = b"for members" * 1000


@pytest.fixture(scope="module")
def apache() -> Iterator[Apache]:
    with running(Apache) as server:
        for name in ("basic", "digest", "cookie"):
            (server.files / name / "f").write_bytes(BODY)
        (server.files / "open").write_bytes(BODY)
        yield server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def worker(start_worker: Callable[..., WorkerHarness], home: Path) -> WorkerHarness:
    """A worker with a home of its own."""
    return start_worker(environment={"HOME": str(home)})


def write_netrc(home: Path, *entries: str) -> None:
    """Write ~/.netrc."""
    (home / ".netrc").write_text("\n".join(entries) + "\n")


@pytest.mark.parametrize("kind", ["basic", "digest"])
def test_a_password_opens_what_is_for_members(apache: Apache, worker: WorkerHarness, folder: Path, kind: str) -> None:
    assert arrival(worker, f"{apache.url}/{kind}/f", folder, username=USER, password=PASSWORD) == BODY


def test_a_server_that_takes_a_digest_never_sees_the_password(
    apache: Apache, worker: WorkerHarness, folder: Path
) -> None:
    arrival(worker, f"{apache.url}/digest/f?once", folder, username=USER, password=PASSWORD)
    asked, told = apache.requests("/digest/f?once", at_least=2)
    assert asked[1] == "-"
    assert told[1].startswith("Digest")


@pytest.mark.parametrize("kind", ["basic", "digest"])
def test_a_wrong_password_is_final_and_not_repeated_in_the_message(
    apache: Apache, worker: WorkerHarness, folder: Path, kind: str
) -> None:
    failed = failure(worker, f"{apache.url}/{kind}/f", folder, username=USER, password="wr0ng-word")
    assert failed.code is FailureCode.AUTHENTICATION
    assert failed.http_status == 401
    assert "wr0ng-word" not in failed.message
    assert USER not in failed.message


def test_the_next_task_is_not_logged_in(apache: Apache, worker: WorkerHarness, folder: Path) -> None:
    url = f"{apache.url}/basic/f"
    arrival(worker, url, folder, username=USER, password=PASSWORD)
    assert failure(worker, url, folder).http_status == 401


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect"])
def test_a_login_does_not_follow_to_another_port(
    apache: Apache, server: MisbehavingServer, worker: WorkerHarness, folder: Path, status: str
) -> None:
    target = f"/basic/f?{status[:3]}"
    url = server.serve("/f", Case(status=status, headers=(f"Location: {apache.url}{target}",)))
    failed = failure(worker, url, folder, username=USER, password=PASSWORD)
    assert failed.http_status == 401
    assert [sent for _, sent, *_ in apache.requests(target)] == ["-"]


def test_netrc_logs_in_to_the_host_that_it_names(
    apache: Apache, worker: WorkerHarness, folder: Path, home: Path
) -> None:
    write_netrc(
        home, "machine other.example login eve password x", f'machine 127.0.0.1 login {USER} password "{PASSWORD}"'
    )
    url = f"{apache.url}/basic/f"
    assert arrival(worker, url, folder, netrc=True) == BODY
    assert failure(worker, url, folder).http_status == 401


def test_netrc_has_the_password_of_the_user_that_is_named(
    apache: Apache, worker: WorkerHarness, folder: Path, home: Path
) -> None:
    write_netrc(home, "machine 127.0.0.1 login eve password x", f'machine 127.0.0.1 login {USER} password "{PASSWORD}"')
    url = f"{apache.url}/basic/f"
    assert failure(worker, url, folder, netrc=True).http_status == 401
    assert arrival(worker, url, folder, netrc=True, username=USER) == BODY
    assert arrival(worker, url.replace("//", f"//{USER}@"), folder, netrc=True) == BODY


def test_netrc_says_nothing_of_hosts_that_a_redirect_leads_to(
    apache: Apache, server: MisbehavingServer, worker: WorkerHarness, folder: Path, home: Path
) -> None:
    """Not even where its entry is one that makes libcurl send the first host's password (CVE-2024-11053)."""
    write_netrc(home, "machine localhost login eve password f1rst", "machine 127.0.0.1 login eve", "default")
    target = "/basic/f?from-netrc"
    url = server.serve("/f", Case(status="302 Found", headers=(f"Location: {apache.url}{target}",)))
    failed = failure(worker, url.replace("127.0.0.1", "localhost"), folder, netrc=True)
    assert failed.http_status == 401
    assert [sent for _, sent, *_ in apache.requests(target)] == ["-"]


def test_a_netrc_that_is_missing_is_said(apache: Apache, worker: WorkerHarness, folder: Path) -> None:
    failed = failure(worker, f"{apache.url}/basic/f", folder, netrc=True)
    assert failed.code is FailureCode.PERMISSION
    assert "~/.netrc" in failed.message


def test_cookies_of_a_file_are_sent_to_their_host_and_the_file_stays_as_it_is(
    apache: Apache, worker: WorkerHarness, folder: Path, home: Path
) -> None:
    cookies = home / "cookies.txt"
    cookies.write_text(
        "# Netscape HTTP Cookie File\n"
        "127.0.0.1\tFALSE\t/\tFALSE\t0\tticket\tt-417\n"
        "other.example\tFALSE\t/\tFALSE\t0\tticket\tt-999\n"
    )
    before = cookies.stat()
    url = f"{apache.url}/cookie/f"
    assert arrival(worker, url, folder, cookie_file="~/cookies.txt") == BODY
    assert apache.requests("/cookie/f")[0][4] == "ticket=t-417"
    assert failure(worker, url, folder).code is FailureCode.AUTHENTICATION
    assert (cookies.stat().st_mtime_ns, cookies.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_cookies_that_a_server_sets_are_not_written(
    server: MisbehavingServer, worker: WorkerHarness, folder: Path, home: Path
) -> None:
    cookies = home / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n")
    url = server.serve("/f", Case(body=BODY, headers=("Set-Cookie: a=b; Max-Age=1000",)))
    assert arrival(worker, url, folder, cookie_file=str(cookies)) == BODY
    assert cookies.read_text() == "# Netscape HTTP Cookie File\n"


def test_referer_and_user_agent_are_what_the_task_says_and_only_for_it(
    apache: Apache, worker: WorkerHarness, folder: Path
) -> None:
    url = f"{apache.url}/open"
    arrival(worker, url, folder, referer="http://page.example/", user_agent="Mozilla/9")
    arrival(worker, url, folder)
    said, unsaid = apache.requests("/open", at_least=2)
    assert said[2:4] == ["Mozilla/9", "http://page.example/"]
    assert unsaid[2].startswith("autodl/")
    assert unsaid[3] == "-"


def test_tasks_with_and_without_a_login_take_turns(apache: Apache, worker: WorkerHarness, folder: Path) -> None:
    url = f"{apache.url}/basic/f"
    for _ in range(5):
        assert isinstance(outcome(worker, url, folder, username=USER, password=PASSWORD), Finished)
        assert isinstance(outcome(worker, url, folder), Failed)
