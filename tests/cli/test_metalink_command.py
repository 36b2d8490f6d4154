"""`autodl add FILE.meta4`, `autodl get FILE.meta4` and `--metalink`: what they become on the wire."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest
from fake_daemon import FakeDaemon, Run, task

SHA1 = hashlib.sha1(b"").hexdigest()
SHA256 = hashlib.sha256(b"").hexdigest()
URL = "http://x.test/plain"


def document(*files: str) -> str:
    return f'<metalink xmlns="urn:ietf:params:xml:ns:metalink">{"".join(files)}</metalink>'


def described(name: str, *, scheme: str = "http") -> str:
    return (
        f'<file name="{name}"><size>1500</size><hash type="sha-256">{SHA256}</hash>'
        f'<pieces length="1024" type="sha-1"><hash>{SHA1}</hash><hash>{SHA1}</hash></pieces>'
        f'<url priority="2">ftp://y.test/{name}</url><url priority="1">{scheme}://x.test/{name}</url></file>'
    )


@pytest.fixture(autouse=True)
def _answers(daemon: FakeDaemon) -> None:
    counter = itertools.count(1)
    daemon.answers["add"] = lambda params: {"ids": [next(counter) for _ in params["urls"]]}


@pytest.fixture
def two(home: Path) -> Path:
    path = home / "two.meta4"
    path.write_text(document(described("a"), described("b")))
    return path


def test_each_file_of_a_metalink_is_a_task_with_all_that_is_said_of_it(run: Run, daemon: FakeDaemon, two: Path) -> None:
    done = run("add", "two.meta4")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n2\n", "")
    wanted = [
        {
            "urls": [f"http://x.test/{name}"],
            "mirrors": [f"ftp://y.test/{name}"],
            "output": name,
            "size_bytes": 1500,
            "checksums": [f"sha256={SHA256}"],
            "pieces": {"algorithm": "sha1", "length_bytes": 1024, "digests": [SHA1, SHA1]},
            "dir": "~/autodl-storage",
        }
        for name in ("a", "b")
    ]
    assert [{key: params[key] for key in wanted[0]} for params in daemon.params("add")] == wanted


def test_a_metalink_comes_as_an_argument_an_option_or_on_stdin(run: Run, daemon: FakeDaemon, two: Path) -> None:
    assert run("add", "./two.meta4", "down", URL).returncode == 2
    assert run("add", URL, str(two), "down").stdout == "1\n2\n3\n"
    assert [(params["urls"], params["dir"]) for params in daemon.params("add")] == [
        ([URL], f"{two.parent}/down"),
        (["http://x.test/a"], f"{two.parent}/down"),
        (["http://x.test/b"], f"{two.parent}/down"),
    ]
    two.rename(two.with_name("TWO.METALINK"))
    assert run("add", "TWO.METALINK").stdout == "4\n5\n"
    assert run("add", "-M", "TWO.METALINK", "--metalink", "-", stdin=document(described("c"))).stdout == "6\n7\n8\n"


def test_a_folder_may_be_called_like_a_metalink(run: Run, daemon: FakeDaemon, home: Path) -> None:
    (home / "x.meta4").mkdir()
    run("add", URL, "x.meta4")
    assert daemon.params("add")[0]["dir"] == f"{home}/x.meta4"


def test_get_saves_to_the_current_folder(run: Run, daemon: FakeDaemon, two: Path) -> None:
    daemon.watches = [[task(1, "finished"), task(2, "finished")]]
    assert run("get", "two.meta4").returncode == 0
    assert {params["dir"] for params in daemon.params("add")} == {str(two.parent)}


def test_what_the_command_line_says_is_added_and_wins(run: Run, daemon: FakeDaemon, home: Path) -> None:
    (home / "one.meta4").write_text(document(described("a", scheme="https")))
    md5 = hashlib.md5(b"").hexdigest()
    run(
        *["add", "one.meta4", "-o", "mine", "--mirror", "http://z.test/a", "--checksum", f"md5={md5}", "-x", "3"],
        https_proxy="p:1",
    )
    [params] = daemon.params("add")
    assert params["output"] == "mine"
    assert params["mirrors"] == ["ftp://y.test/a", "http://z.test/a"]
    assert params["checksums"] == [f"md5={md5}", f"sha256={SHA256}"]
    assert (params["connections"], params["proxy"]) == (3, "p:1")


def test_a_list_of_checksums_names_the_files_of_a_metalink_too(run: Run, daemon: FakeDaemon, home: Path) -> None:
    (home / "one.meta4").write_text(document(f"<file name='a'><url>{URL}</url></file>"))
    (home / "sums").write_text(f"{SHA256}  a\n{SHA1}  other\n")
    run("add", "one.meta4", "--checksum", "sums")
    assert daemon.params("add")[0]["checksums"] == [f"sha256={SHA256}"]


@pytest.mark.parametrize("option", ["-o", "--mirror"])
def test_an_option_about_one_file_is_refused_for_two(run: Run, daemon: FakeDaemon, two: Path, option: str) -> None:
    done = run("add", "two.meta4", option, "http://x.test/x")
    assert done.returncode == 2
    assert "a single URL" in done.stderr
    assert daemon.requests == []


def test_what_of_it_is_not_used_is_said_on_stderr(run: Run, daemon: FakeDaemon, home: Path) -> None:
    (home / "odd.meta4").write_text(document(f"<file name='../.evil'><url>{URL}</url><url>rsync://x/y</url></file>"))
    done = run("add", "odd.meta4")
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert done.stderr == (
        "autodl: odd.meta4: ../.evil: it is saved as _evil\n"
        "autodl: odd.meta4: ../.evil: 1 of its sources can't be used (torrents, or other schemes)\n"
    )
    assert daemon.params("add")[0]["output"] == "_evil"


def test_a_flood_of_notes_is_cut(run: Run, home: Path) -> None:
    (home / "odd.meta4").write_text(document(*[f"<file name='d/{n}'><url>{URL}</url></file>" for n in range(100)]))
    done = run("add", "odd.meta4")
    assert len(done.stderr.splitlines()) == 21
    assert done.stderr.endswith("and 80 more such notes\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("<html/>", "autodl: bad.meta4: not a Metalink"),
        ("<!DOCTYPE x [<!ENTITY a SYSTEM '/etc/passwd'>]><x>&a;</x>", "autodl: bad.meta4: it declares a document type"),
        (document("<file name='a\u202eb'/>"), "autodl: bad.meta4: a\ufffdb: none of its URLs"),
        ("", "autodl: bad.meta4: not XML"),
    ],
)
def test_a_bad_metalink_queues_nothing_and_is_named(
    run: Run, daemon: FakeDaemon, home: Path, content: str, words: str
) -> None:
    (home / "bad.meta4").write_text(content)
    done = run("add", URL, "bad.meta4")
    assert done.returncode == 2
    assert done.stderr.startswith(words)
    assert daemon.requests == []


def test_a_metalink_that_can_not_be_read_is_a_usage_error(run: Run, daemon: FakeDaemon) -> None:
    done = run("add", "-M", "nothing.meta4")
    assert done.returncode == 2
    assert "can't read nothing.meta4: No such file" in done.stderr
    assert "not a URL: nothing.meta4" in run("add", "nothing.meta4").stderr
    assert daemon.requests == []
