"""Options of `autodl add` with a real daemon: kept as they were asked, or refused before anything is queued."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.nginx import Nginx
from support.rpc import Refused

URL = "http://127.0.0.1:1/x"
SHA256 = hashlib.sha256(b"").hexdigest()
SHA1 = hashlib.sha1(b"").hexdigest()


@pytest.fixture(scope="module")
def target() -> Iterator[Daemon]:
    """One daemon for all tests of what is refused and what is kept."""
    folder = Path(tempfile.mkdtemp(prefix="autodl-o-"))
    daemon = Daemon(folder).start()
    yield daemon
    assert daemon.end_all() == []
    assert daemon.defects() == [], daemon.log_end()
    shutil.rmtree(folder)


def kept_options(daemon: Daemon, task_id: int) -> dict[str, Any]:
    """Return what the queue on disk has of a task's options: what is no default."""
    with sqlite3.connect(f"file:{daemon.state_dir}/queue.db?mode=ro", uri=True) as database:
        [[text]] = database.execute("SELECT options FROM task WHERE id = ?", (task_id,)).fetchall()
    database.close()
    options = json.loads(text)
    assert isinstance(options, dict)
    return options


def test_what_is_asked_is_kept_with_the_task(daemon: Daemon) -> None:
    (daemon.home / "cookies").write_text("")
    (daemon.home / "secret").write_text("pa:ss\n")
    (daemon.home / "SHA256SUMS").write_text(f"{SHA256}  x\n{'0' * 64}  y\n")
    done = daemon.autodl(
        *["add", URL, "--paused", "--mirror", URL + "2", "-x", "5", "--checksum", "SHA256SUMS", "--cookies", "cookies"],
        *["--user", "alice", "--password-file", "secret", "-4", "-R", "--referer", "http://r.test/"],
        cwd=daemon.home,
        env={"http_proxy": "http://proxy.test:3128", "no_proxy": "example.org"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert kept_options(daemon, 1) == {
        "mirrors": [URL + "2"],
        "connections": 5,
        "checksums": [f"sha256={SHA256}"],
        "cookie_file": str(daemon.home / "cookies"),
        "username": "alice",
        "password": "pa:ss",
        "ip_version": "4",
        "remote_time": True,
        "referer": "http://r.test/",
        "proxy": "http://proxy.test:3128",
        "no_proxy": "example.org",
    }


def test_a_metalink_becomes_tasks_with_their_own_hashes(daemon: Daemon) -> None:
    described = "".join(
        f"<file name='{name}'><size>1500</size><hash type='sha-256'>{SHA256}</hash>"
        f"<pieces length='1024' type='sha-1'><hash>{SHA1}</hash><hash>{SHA1}</hash></pieces>"
        f"<url>http://127.0.0.1:1/{name}</url><url>ftp://127.0.0.1:1/{name}</url></file>"
        for name in ("a", "b")
    )
    document = f"<metalink xmlns='urn:ietf:params:xml:ns:metalink'>{described}</metalink>"
    assert daemon.ok("add", "--paused", "-M", "-", stdin=document) == "1\n2\n"
    for task_id, name in ((1, "a"), (2, "b")):
        assert daemon.status(task_id)["url"] == f"http://127.0.0.1:1/{name}"
        assert kept_options(daemon, task_id) == {
            "mirrors": [f"ftp://127.0.0.1:1/{name}"],
            "checksums": [f"sha256={SHA256}"],
            "size_bytes": 1500,
            "pieces": {"algorithm": "sha1", "length_bytes": 1024, "digests": [SHA1, SHA1]},
        }


def test_a_file_that_is_described_right_arrives(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("options/right.bin", 5000)
    (daemon.home / "sums").write_text(f"{served.sha256}  right.bin\n")
    daemon.ok("add", served.url, "-d", str(daemon.files), "--checksum", "sums", cwd=daemon.home)
    daemon.await_state(1, "finished")
    assert (daemon.files / "right.bin").read_bytes() == served.data


def test_a_malformed_checksum_is_a_usage_error_and_queues_nothing(daemon: Daemon) -> None:
    done = daemon.autodl("add", URL, "--checksum", "sha256=beef")
    assert (done.returncode, done.stdout) == (2, "")
    assert "a sha256 checksum has 64 hexadecimal digits, not 4" in done.stderr
    assert daemon.tasks() == []


PIECES = {"algorithm": "sha1", "length_bytes": 1024, "digests": [SHA1]}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"mirrors": ["file:///etc/passwd"]}, "bad_url"),
        ({"output": ".f.autodl-part"}, "invalid_params"),
        ({"mirrors": [URL] * 33}, "invalid_params"),
        ({"mirrors": [URL], "urls": [URL, URL]}, "invalid_params"),
        ({"checksums": ["sha256=beef"]}, "invalid_params"),
        ({"checksums": ["SHA256SUMS"]}, "invalid_params"),
        ({"checksums": ["http:///SHA256SUMS"]}, "bad_url"),
        ({"checksums": ["file:///SHA256SUMS"]}, "invalid_params"),
        ({"pieces": {**PIECES, "algorithm": "crc32"}}, "invalid_params"),
        ({"pieces": {**PIECES, "digests": [SHA1.upper()]}}, "invalid_params"),
        ({"pieces": {**PIECES, "digests": [SHA1, SHA256]}}, "invalid_params"),
        ({"pieces": {**PIECES, "digests": []}}, "invalid_params"),
        ({"pieces": {**PIECES, "length_bytes": 1023}}, "invalid_params"),
        ({"pieces": PIECES, "size_bytes": 1025}, "invalid_params"),
        ({"pieces": PIECES, "urls": [URL, URL]}, "invalid_params"),
        ({"size_bytes": -1}, "invalid_params"),
        ({"size_bytes": 1, "urls": [URL, URL]}, "invalid_params"),
        *[
            ({name: value}, "invalid_params")
            for name in ("cookie_file", "ca_file", "client_cert", "client_key", "continue_from")
            for value in ("relative/file", "", "/x\0y", "/x\ny", "/" + "x" * 4001)
        ],
        *[
            (
                {name: f"a{character}b", "username": "u"} if name == "password" else {name: f"a{character}b"},
                "invalid_params",
            )
            for name in ("username", "password", "referer", "user_agent", "interface", "proxy", "no_proxy")
            for character in "\0\r\n"
        ],
        ({"username": "alice:secret"}, "invalid_params"),
        ({"username": ""}, "invalid_params"),
        ({"password": "secret"}, "invalid_params"),
        ({"interface": ""}, "invalid_params"),
        ({"proxy": "ftp://proxy.test:1"}, "invalid_params"),
        ({"proxy": "http://user:secret@proxy.test:0"}, "invalid_params"),
        ({"proxy": "secret@"}, "invalid_params"),
        ({"if_newer": True, "continue_from": "/part"}, "invalid_params"),
        ({"continue_from": "/part", "urls": [URL, URL]}, "invalid_params"),
        ({"connections": 0}, "invalid_params"),
        ({"connections": 257}, "invalid_params"),
        ({"http_version": "4"}, "invalid_params"),
        ({"headers": ["A: " + "x" * 8000] * 5}, "invalid_params"),
        ({"urls": [URL] * 20_000, "user_agent": "x" * 500}, "invalid_params"),
        ({"urls": [URL] * 20_000, "dir": "/" + "x" * 500}, "invalid_params"),
        ({"urls": [URL] * 20_000, "headers": ["A: " + "x" * 500]}, "invalid_params"),
    ],
)
def test_the_daemon_itself_refuses_what_can_not_be_kept(target: Daemon, options: dict[str, Any], code: str) -> None:
    with target.connect() as wire:
        before = wire.call("stats")["tasks"]
        with pytest.raises(Refused) as refused:
            wire.call("add", **{"urls": [URL], "dir": "/tmp", "paused": True, **options})
        assert refused.value.code == code
        assert "secret" not in str(refused.value)
        assert wire.call("stats")["tasks"] == before


@pytest.mark.parametrize(
    "options",
    [
        {"proxy": proxy}
        for proxy in (
            "",
            "proxy.test",
            "proxy.test:3128",
            "HTTP://u:p%20@proxy.test:1/",
            "socks5h://[::1]:9",
            "[fe80::1%eth0]",
        )
    ]
    + [
        {"cookie_file": "~/cookies", "client_key": "~", "ca_file": "/etc/ssl/x"},
        {"username": "DOMAIN\\user", "password": ""},
        {"checksums": ["SHA3-256=" + SHA256, "ftp://x.test/SUMS"]},
        {"pieces": PIECES, "size_bytes": 1024},
        {"no_proxy": "x" * 16384},
        {"user_agent": "", "referer": ""},
        {"urls": [URL] * 20_000, "user_agent": "x" * 300},
    ],
)
def test_what_can_be_meant_is_kept(target: Daemon, options: dict[str, Any]) -> None:
    with target.connect() as wire:
        ids = wire.call("add", **{"urls": [URL], "dir": "/tmp", "paused": True, **options})["ids"]
    assert kept_options(target, ids[0]) == {name: value for name, value in options.items() if name != "urls"}
