"""The options of `autodl add` that say how a file is fetched and checked: what they become on the wire."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_daemon import ROOT, FakeDaemon, Run, environment, task

URL = "http://example.test/a.bin"
SHA = hashlib.sha256(b"").hexdigest()
MD5 = hashlib.md5(b"").hexdigest()


@pytest.fixture(autouse=True)
def _answers(daemon: FakeDaemon) -> None:
    counter = itertools.count(1)
    daemon.answers["add"] = lambda params: {"ids": [next(counter) for _ in params["urls"]]}


def sent(daemon: FakeDaemon) -> dict[str, Any]:
    [params] = daemon.params("add")
    return params


def refused(done: subprocess.CompletedProcess[str], daemon: FakeDaemon, *words: str) -> None:
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("autodl: ")
    for word in words:
        assert word in done.stderr
    assert daemon.requests == []


# --- files of the caller ---


@pytest.mark.parametrize(
    ("option", "field"),
    [
        ("--cookies", "cookie_file"),
        ("--ca-file", "ca_file"),
        ("--cert", "client_cert"),
        ("--key", "client_key"),
        ("--continue-from", "continue_from"),
    ],
)
def test_a_file_becomes_absolute_and_keeps_its_symlinks(
    run: Run, daemon: FakeDaemon, home: Path, option: str, field: str
) -> None:
    (home / "real").mkdir()
    (home / "real" / "file").write_text("x")
    (home / "link").symlink_to("real")
    run("add", URL, option, "link/file")
    run("add", URL, option, "~/link/file")
    assert [params[field] for params in daemon.params("add")] == [f"{home}/link/file"] * 2


@pytest.mark.parametrize("option", ["--cookies", "--ca-file", "--cert", "--key", "--continue-from"])
def test_a_file_that_is_not_there_is_named(run: Run, daemon: FakeDaemon, option: str) -> None:
    refused(run("add", URL, option, "nothing"), daemon, option, "can't read nothing: No such file")
    refused(run("add", URL, option, ""), daemon, option, "must not be empty")
    refused(run("add", URL, option, "."), daemon, option, "directory")


@pytest.mark.parametrize("option", ["--cookies", "--ca-file", "--cert", "--key", "--continue-from"])
def test_a_pipe_is_refused_at_once_and_not_waited_for(run: Run, daemon: FakeDaemon, home: Path, option: str) -> None:
    os.mkfifo(home / "pipe")
    refused(run("add", URL, option, "pipe"), daemon, option, "pipe is a pipe or a device")


# --- checksums ---


def test_a_checksum_arrives_as_the_daemon_spells_it(run: Run, daemon: FakeDaemon) -> None:
    run("add", URL, "--checksum", f"SHA-256={SHA.upper()}", "--checksum", "https://example.test/SHA256SUMS")
    assert sent(daemon)["checksums"] == [f"sha256={SHA}", "https://example.test/SHA256SUMS"]


@pytest.mark.parametrize(
    ("checksum", "words"),
    [
        ("sha256=abc", "a sha256 checksum has 64 hexadecimal digits, not 3"),
        (f"sha257={SHA}", "unknown checksum algorithm 'sha257'"),
        (SHA, f"such as sha256={SHA}"),
        ("nothing-there", "can't read the list of checksums nothing-there: No such file"),
        ("http:///SHA256SUMS", "names no host"),
        (".", "can't read the list"),
    ],
)
def test_a_checksum_that_is_none_is_refused(run: Run, daemon: FakeDaemon, checksum: str, words: str) -> None:
    refused(run("add", URL, "--checksum", checksum), daemon, words)


def test_each_url_gets_its_own_checksum_from_a_list(run: Run, daemon: FakeDaemon, home: Path) -> None:
    names = ["a.bin", "b c.bin", "d.bin"]
    hashes = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    (home / "SHA256SUMS").write_text(
        "".join(f"{digits}  {name}\n" for digits, name in zip(hashes, names, strict=True)) + f"{SHA}  other\n"
    )
    urls = ["http://x.test/p/a.bin?q=1", "http://x.test/b%20c.bin#top", "ftp://x.test/d.bin;type=i"]
    done = run("add", *urls, "--checksum", "SHA256SUMS", "--checksum", f"md5={MD5}")
    assert done.stdout == "1\n2\n3\n"
    assert [(params["urls"], params["checksums"]) for params in daemon.params("add")] == [
        ([url], [f"md5={MD5}", f"sha256={digits}"]) for url, digits in zip(urls, hashes, strict=True)
    ]


def test_the_output_may_be_what_the_list_calls_the_file(run: Run, daemon: FakeDaemon, home: Path) -> None:
    (home / "sums").write_text(f"{SHA} *image.iso\n{'0' * 64} *other.iso\n")
    run("add", "http://x.test/download?id=7", "-o", "sub/image.iso", "--checksum", "./sums")
    assert sent(daemon)["checksums"] == [f"sha256={SHA}"]


def test_a_list_without_the_file_is_refused_with_both_names(run: Run, daemon: FakeDaemon, home: Path) -> None:
    (home / "sums").write_text(f"{SHA}  b.bin\n{SHA}  c.bin\n")
    refused(run("add", "http://x.test/b.bin", URL, "--checksum", "sums"), daemon, "sums has no checksum of a.bin")
    (home / "sums").rename(home / "SHA256SUMS")
    refused(run("add", URL, "--checksum", "SHA256SUMS"), daemon, "autodl: SHA256SUMS has no checksum of a.bin")


def test_a_list_that_is_no_list_is_refused(run: Run, daemon: FakeDaemon, home: Path) -> None:
    (home / "big").write_bytes(b"\0" * (4 * 1024 * 1024 + 1))
    refused(run("add", URL, "--checksum", "big"), daemon, "big is no list of checksums")


def test_a_long_list_says_the_same_as_a_short_one(run: Run, daemon: FakeDaemon, home: Path) -> None:
    lines = [f"{hashlib.sha256(b'%d' % number).hexdigest()}  file-{number}\n" for number in range(2000)]
    (home / "sums").write_text("".join(lines))
    run("add", *(f"http://x.test/file-{number}" for number in (7, 77, 1999)), "--checksum", "sums")
    assert [params["checksums"] for params in daemon.params("add")] == [
        [f"sha256={hashlib.sha256(b'%d' % number).hexdigest()}"] for number in (7, 77, 1999)
    ]
    bare = home / "mixed"
    bare.write_text("".join(lines) + SHA.replace("e3b0", "abcd") + "\n")
    daemon.requests.clear()
    refused(run("add", "http://x.test/abcd", "--checksum", "mixed"), daemon, "mixed has no checksum of abcd")


# --- logging in ---


def test_a_password_in_user_is_refused_without_being_shown(run: Run, daemon: FakeDaemon) -> None:
    done = run("add", URL, "--user", "alice:s3cret")
    refused(done, daemon, "everybody on this machine can see command lines", "--password-file")
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize("content", ["pass word \n", "pass word \r\nsecond line\n", "pass word "])
def test_the_password_is_the_first_line_of_the_file(run: Run, daemon: FakeDaemon, home: Path, content: str) -> None:
    (home / "secret").write_text(content)
    run("add", URL, "--user", "alice", "--password-file", "secret")
    run("add", URL, "--user", "alice", "--password-file", "-", stdin=content)
    assert [(params["username"], params["password"]) for params in daemon.params("add")] == [
        ("alice", "pass word ")
    ] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--user", "alice", "--password-file", "nothing"], "can't read the password from nothing"),
        (["--user", "alice", "--password-file", "empty"], "the first line of empty is empty"),
        (["--user", "alice", "--password-file", "latin"], "is not UTF-8"),
        (["--password-file", "empty"], "give --user NAME too"),
        (["--user", ""], "--user must name somebody"),
        (["--user", "alice", "--password-file", "-", "-i", "-"], "stdin can be only one"),
        (["-M", "-", "-i", "-"], "stdin can be only one"),
    ],
)
def test_a_password_that_can_not_be_had_is_a_usage_error(
    run: Run, daemon: FakeDaemon, home: Path, arguments: list[str], words: str
) -> None:
    (home / "empty").write_text("\nsecond")
    (home / "latin").write_bytes(b"\xff\n")
    refused(run("add", URL, *arguments), daemon, words)


def without_terminal(home: Path, daemon: FakeDaemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "autodl.py"), "add", *arguments],
        env=environment(home, AUTODL_SOCKET=str(daemon.path)),
        cwd=home,
        input="not the password\n",
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=60,
    )


def test_without_a_terminal_the_password_must_come_from_a_file(daemon: FakeDaemon, home: Path) -> None:
    done = without_terminal(home, daemon, URL, "--user", "alice")
    refused(done, daemon, "no terminal to ask on", "--password-file -")


def test_who_has_a_key_or_netrc_is_not_asked(daemon: FakeDaemon, home: Path) -> None:
    (home / "id").write_text("key")
    assert without_terminal(home, daemon, "sftp://x.test/f", "--user", "alice", "--key", "id").returncode == 0
    assert without_terminal(home, daemon, URL, "--user", "alice", "--netrc").returncode == 0
    assert [params["password"] for params in daemon.params("add")] == [None, None]


def test_on_a_terminal_the_password_is_asked_for_without_an_echo(daemon: FakeDaemon, home: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(home)
        command = [sys.executable, str(ROOT / "autodl.py"), "add", URL, "--user", "alice"]
        os.execve(sys.executable, command, environment(home, AUTODL_SOCKET=str(daemon.path)))
    shown = b""
    while b"Password of alice: " not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, b"s3cret\n")
    try:
        while chunk := os.read(terminal, 1000):
            shown += chunk
    except OSError:
        pass  # Linux says so when the other side of a terminal is gone.
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (sent(daemon)["username"], sent(daemon)["password"]) == ("alice", "s3cret")
    assert b"s3cret" not in shown
    assert shown.split()[-1] == b"1"


def test_nobody_is_asked_for_a_password_in_vain(daemon: FakeDaemon, home: Path) -> None:
    done = without_terminal(home, daemon, URL, "--user", "alice", "--checksum", "md5=1")
    refused(done, daemon, "a md5 checksum has")


# --- proxies ---


def proxies(daemon: FakeDaemon) -> list[tuple[list[str], str | None, str | None]]:
    return [(params["urls"], params["proxy"], params["no_proxy"]) for params in daemon.params("add")]


def test_proxies_of_the_environment_go_by_the_scheme_and_keep_the_order(run: Run, daemon: FakeDaemon) -> None:
    urls = ["http://x.test/1", "HTTP://x.test/2", "https://x.test/3", "ftp://x.test/4", "sftp://x.test/5", URL]
    done = run(
        "add",
        *urls,
        http_proxy="http://plain:1",
        HTTPS_PROXY="http://secure:2",
        ftp_proxy="files:3",
        ALL_PROXY="socks5h://all:4",
        no_proxy="a.test,b.test",
        NO_PROXY="ignored",
    )
    assert done.stdout.split() == list("123456")
    assert proxies(daemon) == [
        (urls[:2], "http://plain:1", "a.test,b.test"),
        (urls[2:3], "http://secure:2", "a.test,b.test"),
        (urls[3:4], "files:3", "a.test,b.test"),
        (urls[4:5], "socks5h://all:4", "a.test,b.test"),
        (urls[5:], "http://plain:1", "a.test,b.test"),
    ]


def test_where_the_environment_has_no_proxy_for_them_urls_stay_together(run: Run, daemon: FakeDaemon) -> None:
    urls = ["http://x.test/1", "https://x.test/2"]
    run("add", *urls, HTTP_PROXY="http://of-a-cgi-client:1", https_proxy="", NO_PROXY="x")
    assert proxies(daemon) == [(urls, None, None)]


def test_the_lower_case_variable_wins(run: Run, daemon: FakeDaemon) -> None:
    run("add", "https://x.test/1", https_proxy="lower:1", HTTPS_PROXY="upper:1", all_proxy="all:1")
    assert proxies(daemon) == [(["https://x.test/1"], "lower:1", None)]


def test_a_proxy_that_is_asked_for_wins_over_the_environment(run: Run, daemon: FakeDaemon) -> None:
    environment = {"http_proxy": "http://plain:1", "NO_PROXY": "there"}
    run("add", URL, "--proxy", "socks5://me@here:9", **environment)
    run("add", URL, "--proxy", "", **environment)
    run("add", URL, "--no-proxy", "*", **environment)
    assert proxies(daemon) == [
        ([URL], "socks5://me@here:9", "there"),
        ([URL], "", None),
        ([URL], "http://plain:1", "*"),
    ]


def test_socks_without_a_number_is_read_as_curl_reads_it(run: Run, daemon: FakeDaemon) -> None:
    run("add", URL, all_proxy="socks://localhost:1080/")
    assert proxies(daemon) == [([URL], "socks4://localhost:1080/", None)]


@pytest.mark.parametrize("proxy", ["ftp://x:1", "http://", "http://x:99999", "http://u:s3cret@x y:1", "http://x/path"])
def test_a_proxy_that_is_none_is_refused_without_its_password(run: Run, daemon: FakeDaemon, proxy: str) -> None:
    done = run("add", URL, "--proxy", proxy)
    refused(done, daemon, "a proxy")
    assert "s3cret" not in done.stderr
    refused(run("add", URL, http_proxy=proxy), daemon, "from $http_proxy")


# --- the rest ---


def test_mirrors_connections_and_flags_arrive(run: Run, daemon: FakeDaemon) -> None:
    run(
        *["add", URL, "--mirror", URL + "2", "--mirror", "ftp://y.test/a.bin", "-x", "7", "-R", "--if-newer"],
        *["--insecure", "--referer", "http://r.test/", "--user-agent", "me/1", "--interface", "eth0"],
        *["--http-version", "1.1"],
    )
    params = sent(daemon)
    wanted = {
        "mirrors": [URL + "2", "ftp://y.test/a.bin"],
        "connections": 7,
        "remote_time": True,
        "if_newer": True,
        "insecure": True,
        "referer": "http://r.test/",
        "user_agent": "me/1",
        "interface": "eth0",
        "http_version": "1.1",
        "proxy": None,
        "username": None,
        "password": None,
        "ip_version": "any",
    }
    assert {name: params[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("arguments", "version"),
    [(["-4"], "4"), (["--ipv6"], "6"), (["--ip-version", "6"], "6"), (["-4", "--ip-version", "4"], "4"), ([], "any")],
)
def test_the_ip_version_has_short_forms(run: Run, daemon: FakeDaemon, arguments: list[str], version: str) -> None:
    run("add", URL, *arguments)
    assert sent(daemon)["ip_version"] == version


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([URL, "--mirror", URL], "--mirror is about the file of a single URL"),
        ([URL, "--continue-from", "part"], "--continue-from is about the file of a single URL"),
        (["--mirror", "file:///etc/passwd"], "unsupported scheme 'file'"),
        (["--if-newer", "--continue-from", "part"], "give one"),
        (["-4", "-6"], "-4 and -6 exclude each other"),
        (["-4", "--ip-version", "6"], "exclude each other"),
        (["-x", "0"], "0 is not in the range"),
        (["-x", "257"], "257 is not in the range"),
        (["--http-version", "9"], "not one of auto"),
    ],
)
def test_what_can_not_be_meant_is_refused(
    run: Run, daemon: FakeDaemon, home: Path, arguments: list[str], words: str
) -> None:
    (home / "part").write_text("x")
    refused(run("add", URL, *arguments), daemon, words)


def test_urls_with_long_options_go_in_smaller_requests(run: Run, daemon: FakeDaemon) -> None:
    urls = [f"{URL}?{number}" for number in range(2000)]
    run("add", "-i", "-", "-H", "Authorization: Bearer " + "x" * 8000, stdin="\n".join(urls))
    lots = [params["urls"] for params in daemon.params("add")]
    assert [url for lot in lots for url in lot] == urls
    assert all(len(lot) * 8022 <= 8 * 1024 * 1024 for lot in lots)
    assert len(lots) == 3


def test_get_takes_the_same_options(run: Run, daemon: FakeDaemon, home: Path) -> None:
    (home / "sums").write_text(f"{SHA}  a.bin\n")
    (home / "secret").write_text("pw")
    daemon.watches = [[task(1, "finished")]]
    run("get", URL, "--checksum", "sums", "--user", "bob", "--password-file", "secret", http_proxy="p:1")
    params = sent(daemon)
    assert (params["checksums"], params["password"], params["proxy"]) == ([f"sha256={SHA}"], "pw", "p:1")


def test_help_has_every_option_once_under_a_heading(run: Run) -> None:
    for command in ("add", "get"):
        text = run(command, "--help").stdout
        headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
        assert headings == [
            "Where and how to save:",
            "When and how fast:",
            "Checking what arrives:",
            "Where from:",
            "What the server is told:",
            "Logging in:",
            "Connecting:",
            "Options:",
        ]
        for option in ("--mirror URL", "--checksum", "--user NAME", "-4, --ipv4", "-M, --metalink", "--dir DIR"):
            assert text.count(f"  {option}") + text.count(f", {option}") == 1, (command, option)


def test_no_option_of_a_request_is_without_a_heading(run: Run) -> None:
    text = run("add", "--help").stdout
    names = [line.split()[0] for line in text.partition("\nOptions:\n")[2].splitlines() if line.startswith("  -")]
    assert names == ["--socket", "--json", "--version", "-h,"]


def test_json_still_prints_all_ids_of_split_requests(run: Run) -> None:
    done = run("add", "--json", URL, "https://x.test/2", http_proxy="p:1")
    assert json.loads(done.stdout) == {"ids": [1, 2]}
