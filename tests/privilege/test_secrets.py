"""What a user trusts the daemon with to reach a server is told to that server alone, and forgotten when it is done."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.accounts import User, accounts
from support.daemon import QUICK, Daemon, MakeDaemon
from support.misbehaving_server import Case, MisbehavingServer
from support.nginx import Nginx
from support.waiting import wait_until

WORDS = {
    "URL password": "hunter-in-url",
    "the password": "hunter-password",
    "the user": "hunter-user",
    "a header": "hunter-header",
    "a cookie": "hunter-cookie",
    "proxy password": "hunter-proxy",
    "mirror password": "hunter-mirror",
    "password of a list of checksums": "hunter-list",
}


@pytest.fixture(scope="module")
def users() -> Iterator[dict[str, User]]:
    with accounts("alice", "bob", "admin", groups={"admin": ["adlt-secret-admins"]}) as made:
        yield made


@pytest.fixture
def daemon(make_daemon: MakeDaemon, users: dict[str, User]) -> Daemon:
    """One that has an administrator who is not root."""
    return make_daemon(config=QUICK + '[access]\nadmin_group = "adlt-secret-admins"\n').start()


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


def in_the_open(content: bytes) -> list[str]:
    """Return whose secrets are in some bytes, as they stand or as HTTP would send them."""
    found = []
    for what, word in WORDS.items():
        forms = [word.encode(), base64.b64encode(word.encode()).rstrip(b"=")[:-1]]
        if any(form in content for form in forms):
            found.append(what)
    return found


def with_password(url: str, what: str) -> str:
    return url.replace("http://", f"http://name:{WORDS[what]}@")


def trusted(url: str, folder: Path, *sums: str) -> dict[str, Any]:
    """Return the parameters of a task that is told all secrets there are, but for a proxy's."""
    return {
        "checksums": [with_password(url, "password of a list of checksums") for url in sums],
        "urls": [with_password(url, "URL password")],
        "dir": str(folder),
        "username": WORDS["the user"],
        "password": WORDS["the password"],
        "headers": [f"X-Token: {WORDS['a header']}", f"Cookie: session={WORDS['a cookie']}"],
        "mirrors": [with_password("http://127.0.0.1:1/mirror", "mirror password")],
    }


def on_disk(daemon: Daemon) -> dict[str, list[str]]:
    """Return which files of the state hold secrets; freed pages and the write-ahead log are in them too."""
    files = [path for path in daemon.state_dir.rglob("*") if path.is_file()]
    return {path.name: found for path in files if (found := in_the_open(path.read_bytes()))}


def elsewhere(daemon: Daemon, user: User) -> dict[str, list[str]]:
    """Return where else secrets are: what ps shows, the log, files in the user's home, a core file."""
    places = {f"files of {user.name}: {path}": path.read_bytes() for path in user.home.rglob("*") if path.is_file()}
    places |= {str(path): path.read_bytes() for path in (*daemon.folder.rglob("core*"), *Path("/").glob("core*"))}
    places["the log"] = daemon.log().encode()
    for process in [psutil.Process(daemon.pid), *psutil.Process(daemon.pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            places[f"ps {process.pid}"] = "\0".join(process.cmdline()).encode()
            places[f"environ {process.pid}"] = Path(f"/proc/{process.pid}/environ").read_bytes()
    return {place: found for place, content in places.items() if (found := in_the_open(content))}


def test_no_byte_of_a_secret_is_left_on_disk_once_a_task_has_finished(
    daemon: Daemon, nginx: Nginx, users: dict[str, User], server: MisbehavingServer
) -> None:
    """One that failed, was cancelled or cleared may be tried again, and keeps them until it is forgotten."""
    alice, served = users["alice"], nginx.file("secrets/done.bin", 3000)
    sums = server.serve("/SHA256SUMS", Case(body=f"{served.sha256}  done.bin\n".encode()))
    alice.call(daemon.socket, "pause")
    [task_id] = alice.call(daemon.socket, "add", **trusted(served.url, alice.home, sums))["ids"]
    assert set().union(*on_disk(daemon).values()) == set(WORDS) - {"proxy password"}, "this test would not see them"
    alice.call(daemon.socket, "resume")
    task = daemon.await_state(task_id, "finished")
    assert Path(task["dest"]).read_bytes() == served.data
    wait_until(lambda: not on_disk(daemon), "they are wiped", seen=lambda: on_disk(daemon))
    assert elsewhere(daemon, alice) == {}
    assert alice.call(daemon.socket, "status", id=task_id)["url"].startswith("http://***@")
    daemon.stop()
    assert on_disk(daemon) == {}


def test_secrets_are_shown_to_their_owner_and_to_nobody_else(
    daemon: Daemon, nginx: Nginx, users: dict[str, User]
) -> None:
    alice, served = users["alice"], nginx.file("secrets/shown.bin", 3_000_000)
    [task_id] = alice.call(daemon.socket, "add", **trusted(served.slow_url, alice.home))["ids"]
    daemon.await_bytes(task_id)
    for who in ("bob", "admin"):
        answers = []
        asked: list[tuple[str, dict[str, Any]]] = [("list", {}), ("stats", {})]
        if who == "admin":
            asked += [("list", {"all": True}), ("stats", {"all": True})]
            asked += [(method, {"id": task_id}) for method in ("status", "log", "explain")]
        for method, params in asked:
            answers.append(users[who].call(daemon.socket, method, **params))
        assert in_the_open(json.dumps(answers).encode()) == [], who
    assert list(alice.home.glob(".shown.bin.autodl-*"))
    assert elsewhere(daemon, alice) == {}
    alice.call(daemon.socket, "cancel", ids=[task_id])
    assert elsewhere(daemon, alice) == {}


def test_the_query_of_a_url_is_as_good_as_a_password_and_for_its_owner_only(
    daemon: Daemon, nginx: Nginx, users: dict[str, User], server: MisbehavingServer
) -> None:
    alice = users["alice"]
    url = f"{nginx.file('secrets/signed.bin', 1000).url}?X-Amz-Signature={WORDS['a header']}"
    sums = f"{server.serve('/nothing', Case(status='404 Not Found'))}?token={WORDS['a cookie']}"
    [task_id] = alice.call(daemon.socket, "add", urls=[url], dir=str(alice.home), checksums=[sums])["ids"]
    daemon.await_state(task_id, "failed")
    for method, params in (
        ("list", {"all": True}),
        ("history", {"all": True}),
        ("status", {"id": task_id}),
        ("log", {"id": task_id}),
        ("explain", {"id": task_id}),
    ):
        answer = json.dumps(users["admin"].call(daemon.socket, method, **params))
        assert in_the_open(answer.encode()) == [], method
        assert method in ("log", "explain") or "secrets/signed.bin?***" in answer
    assert in_the_open(daemon.log().encode()) == []
    assert alice.call(daemon.socket, "status", id=task_id)["url"] == url
    mine = alice.call(daemon.socket, "history")["events"]
    assert {entry["url"] for entry in mine if entry["id"] == task_id} == {url}


@pytest.mark.parametrize(("name", "code"), [("missing", "remote_missing"), ("of-others", "checksum")])
def test_why_a_task_failed_is_said_without_secrets(
    daemon: Daemon, nginx: Nginx, users: dict[str, User], server: MisbehavingServer, name: str, code: str
) -> None:
    alice = users["alice"]
    server.serve("/of-others", Case(body=b"0" * 64 + b"  other.bin\n"))
    sums = f"http://127.0.0.1:{server.port}/{name}"
    params = trusted(nginx.file("secrets/why.bin", 3000).url, alice.home, f"{sums}?SHA256SUMS")
    [task_id] = alice.call(daemon.socket, "add", **params)["ids"]
    task = daemon.await_state(task_id, "failed")
    assert task["error"]["code"] == code
    assert "***@127.0.0.1" in task["error"]["message"]
    answers = [users["admin"].call(daemon.socket, method, id=task_id) for method in ("status", "log", "explain")]
    answers.append(users["admin"].call(daemon.socket, "history", all=True))
    assert in_the_open(json.dumps(answers).encode()) == []
    assert elsewhere(daemon, alice) == {}


def test_the_queue_is_for_the_daemon_s_eyes_only(daemon: Daemon) -> None:
    daemon.add("http://127.0.0.1:1/x", "--paused")
    modes = {path.name: path.stat().st_mode & 0o077 for path in (daemon.state_dir, *daemon.state_dir.iterdir())}
    files = {name: mode for name, mode in modes.items() if not name.endswith(".sock")}
    assert set(files.values()) == {0}, modes
