"""`autodl add`: what the command line becomes on the wire."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_daemon import ROOT, FakeDaemon, Refusal, Run, environment

URL = "http://example.test/a.bin"


@pytest.fixture(autouse=True)
def _answers(daemon: FakeDaemon) -> None:
    counter = iter(range(1, 10**9))
    daemon.answers["add"] = lambda params: {"ids": [next(counter) for _ in params["urls"]]}


def start_adding(home: Path, daemon: FakeDaemon, *options: str, command: str = "add") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "autodl.py"), command, "-i", "-", *options],
        env=environment(home, AUTODL_SOCKET=str(daemon.path)),
        cwd=home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def send_list(client: subprocess.Popen[bytes], urls_num: int) -> tuple[str, str]:
    """Write the list to its end, and return what came on stdout and stderr."""
    out, err = client.communicate(f"{URL}\n".encode() * urls_num, timeout=60)
    return out.decode(), err.decode()


def test_add_prints_one_id_a_line(run: Run) -> None:
    done = run("add", URL, URL + "2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n2\n", "")


def test_add_json_is_one_document_with_all_ids(run: Run) -> None:
    assert json.loads(run("add", "--json", URL, URL + "2").stdout) == {"ids": [1, 2]}


def test_the_common_options_may_come_before_the_command(run: Run, daemon: FakeDaemon) -> None:
    done = run("--json", "--socket", str(daemon.path), "add", URL, AUTODL_SOCKET="/nonexistent/x.sock")
    assert json.loads(done.stdout) == {"ids": [1]}


def test_the_last_argument_is_the_folder_if_it_is_no_url(run: Run, daemon: FakeDaemon, home: Path) -> None:
    run("add", URL, "down/loads")
    [params] = daemon.params("add")
    assert (params["urls"], params["dir"]) == ([URL], f"{home}/down/loads")


def test_a_folder_alone_is_no_url(run: Run) -> None:
    done = run("add", "downloads")
    assert done.returncode == 2
    assert done.stderr.startswith("autodl: not a URL: downloads")


def test_with_dir_given_the_last_argument_must_be_a_url(run: Run) -> None:
    done = run("add", "-d", "x", URL, "downloads")
    assert done.returncode == 2
    assert "not a URL: downloads" in done.stderr


def test_an_absolute_folder_and_one_of_the_home_go_as_they_are(run: Run, daemon: FakeDaemon) -> None:
    run("add", URL, "-d", "/srv/x/")
    run("add", URL, "~/y")
    assert [params["dir"] for params in daemon.params("add")] == ["/srv/x", "~/y"]


def test_the_default_folder_is_the_storage(run: Run, daemon: FakeDaemon) -> None:
    run("add", URL)
    assert daemon.params("add")[0]["dir"] == "~/autodl-storage"


def test_an_output_with_a_slash_names_the_folder_too(run: Run, daemon: FakeDaemon, home: Path) -> None:
    run("add", URL, "-o", "sub/name.bin")
    run("add", URL, "-o", "/abs/name.bin")
    run("add", URL, "-o", "name.bin", "-d", "there")
    run("add", URL, "-o", "sub/name.bin", "-d", "there")
    assert [params["dir"] for params in daemon.params("add")] == [
        f"{home}/sub",
        "/abs",
        f"{home}/there",
        f"{home}/there/sub",
    ]
    assert {params["output"] for params in daemon.params("add")} == {"name.bin"}


@pytest.mark.parametrize("output", ["sub/", ".", "..", "a/.."])
def test_an_output_without_a_name_is_refused(run: Run, output: str) -> None:
    done = run("add", URL, "-o", output)
    assert done.returncode == 2
    assert done.stderr.startswith("autodl: --output must end in a file's name")


def test_an_output_for_two_urls_is_refused(run: Run, daemon: FakeDaemon) -> None:
    done = run("add", URL, URL, "-o", "x")
    assert done.returncode == 2
    assert daemon.requests == []


def test_urls_come_from_stdin_without_blank_lines_and_comments(run: Run, daemon: FakeDaemon) -> None:
    done = run("add", "-i", "-", stdin=f"# a list\n\n{URL}\r\n  {URL}?2  \n")
    assert done.stdout == "1\n2\n"
    assert daemon.params("add")[0]["urls"] == [URL, URL + "?2"]


def test_urls_come_from_several_files(run: Run, daemon: FakeDaemon, home: Path) -> None:
    for name in ("one", "two"):
        (home / name).write_text(f"{URL}/{name}\n")
    run("add", "-i", "one", "--input-file", "two")
    assert daemon.params("add")[0]["urls"] == [f"{URL}/one", f"{URL}/two"]
    done = run("add", "-i", "-", "-i", "-")
    assert (done.returncode, len(daemon.params("add"))) == (2, 1)
    assert "stdin can be only one of the files" in done.stderr


def test_with_an_input_file_the_last_argument_may_be_the_folder(run: Run, daemon: FakeDaemon, home: Path) -> None:
    (home / "list").write_text(URL + "\n")
    run("add", "-i", "list", "there")
    [params] = daemon.params("add")
    assert (params["urls"], params["dir"]) == ([URL], f"{home}/there")


def test_a_bad_line_of_the_input_queues_nothing_and_is_named(run: Run, daemon: FakeDaemon, home: Path) -> None:
    (home / "list").write_text(f"{URL}\n#\nfile:///etc/passwd\n")
    done = run("add", "-i", "list")
    assert done.returncode == 2
    assert done.stderr.startswith("autodl: list, line 3: unsupported scheme 'file'")
    assert daemon.requests == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"\xff\n", "line 1: not UTF-8"), (b"# none\n", "no URL in list"), (None, "can't read list: No such file")],
)
def test_an_unreadable_input_is_a_usage_error(run: Run, home: Path, content: bytes | None, complaint: str) -> None:
    if content is not None:
        (home / "list").write_bytes(content)
    done = run("add", "-i", "list")
    assert done.returncode == 2
    assert complaint in done.stderr


def test_a_long_list_goes_in_several_requests_and_keeps_its_order(run: Run, daemon: FakeDaemon) -> None:
    urls = [f"{URL}?{number}" for number in range(12_000)]
    done = run("add", "-i", "-", stdin="\n".join(urls))
    assert [len(params["urls"]) for params in daemon.params("add")] == [5000, 5000, 2000]
    assert [url for params in daemon.params("add") for url in params["urls"]] == urls
    assert done.stdout.split() == [str(number) for number in range(1, 12_001)]


def test_long_urls_never_make_a_request_over_the_limit(run: Run, daemon: FakeDaemon) -> None:
    urls = [f"{URL}?{number}" + "x" * 60_000 for number in range(100)]
    assert run("add", "-i", "-", stdin="\n".join(urls)).returncode == 0
    assert len(daemon.params("add")) > 1
    assert all(len(json.dumps(request)) < 4 * 1024 * 1024 for request in daemon.requests)


def test_when_a_later_request_is_refused_the_ids_before_it_are_printed(run: Run, daemon: FakeDaemon) -> None:
    def full_after_one(params: dict[str, list[str]]) -> dict[str, list[int]]:
        if len(daemon.params("add")) > 1:
            raise Refusal("queue_full", "you have 5000 tasks queued, and no more are allowed")
        return {"ids": list(range(1, len(params["urls"]) + 1))}

    daemon.answers["add"] = full_after_one
    done = run("add", "--json", "-i", "-", stdin=f"{URL}\n" * 5001)
    assert done.returncode == 1
    assert len(json.loads(done.stdout)["ids"]) == 5000
    assert "only 5000 URLs of 5001" in done.stderr
    assert "autodl: you have 5000 tasks queued" in done.stderr


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_ctrl_c_in_a_long_list_prints_the_ids_of_what_was_sent(
    home: Path, daemon: FakeDaemon, options: tuple[str, ...]
) -> None:
    counter = iter(range(1, 10**9))
    client = start_adding(home, daemon, *options)

    def interrupt(params: dict[str, list[str]]) -> dict[str, list[int]]:
        if len(daemon.params("add")) == 2:
            client.send_signal(signal.SIGINT)
            time.sleep(0.3)
        return {"ids": [next(counter) for _ in params["urls"]]}

    daemon.answers["add"] = interrupt
    out, err = send_list(client, 30_000)
    queued = sum(len(params["urls"]) for params in daemon.params("add"))
    assert queued < 30_000
    printed = json.loads(out)["ids"] if options else [int(line) for line in out.split()]
    assert printed == list(range(1, queued + 1))
    assert (client.returncode, err) == (130, f"autodl: interrupted: queued {queued} URLs of 30000\n")


@pytest.mark.parametrize("command", ["add", "get"])
def test_ctrl_c_twice_does_not_wait_for_a_daemon_that_does_not_answer(
    home: Path, daemon: FakeDaemon, command: str
) -> None:
    client = start_adding(home, daemon, command=command)
    over = threading.Event()

    def hang_at_the_second(params: dict[str, list[str]]) -> dict[str, list[int]]:
        if len(daemon.params("add")) == 2:
            for _ in range(2):
                time.sleep(0.3)
                client.send_signal(signal.SIGINT)
            over.wait(30)
        return {"ids": list(range(1, len(params["urls"]) + 1))}

    daemon.answers["add"] = hang_at_the_second
    out, err = send_list(client, 10_000)
    over.set()
    assert client.returncode == 130
    assert len(out.split()) == (5000 if command == "add" else 0)
    message = "autodl: interrupted: queued 5000 URLs of 10000, and maybe 5000 more: the daemon has not answered yet"
    assert err.startswith(message)
    assert ("`autodl watch 1 2 3 " in err) is (command == "get")


def test_ctrl_c_while_the_daemon_is_silent_says_that_nothing_is_sure(home: Path, daemon: FakeDaemon) -> None:
    client = start_adding(home, daemon, "--json")
    over = threading.Event()

    def hang(_: dict[str, list[str]]) -> dict[str, list[int]]:
        client.send_signal(signal.SIGINT)
        over.wait(30)
        return {}

    daemon.answers["add"] = hang
    out, err = send_list(client, 1)
    over.set()
    assert (client.returncode, out) == (130, "")
    assert err == "autodl: interrupted: queued 0 URLs of 1, and maybe 1 more: the daemon has not answered yet\n"


@pytest.mark.parametrize(
    ("text", "rate"),
    [("500K", 512000), ("2M", 2097152), ("1.5MiB", 1572864), ("100", 100), ("1g", 1 << 30), ("0.4", 1)],
)
def test_a_rate_has_powers_of_1024(run: Run, daemon: FakeDaemon, text: str, rate: int) -> None:
    run("add", URL, "--limit-rate", text)
    assert daemon.params("add")[0]["limit_rate_bps"] == rate


def test_all_options_arrive(run: Run, daemon: FakeDaemon) -> None:
    run("add", URL, "--priority", "-5", "-H", "A: b", "--header", "C: d", "--paused", "--on-conflict", "overwrite")
    [params] = daemon.params("add")
    assert params["priority"] == -5
    assert params["headers"] == ["A: b", "C: d"]
    assert params["paused"] is True
    assert params["on_conflict"] == "overwrite"


@pytest.mark.parametrize(("arguments", "code"), [(["ftp:/x"], None), ([URL, "-o", "x" * 300], "invalid_params")])
def test_where_nothing_is_queued_stdout_is_empty_also_with_json(
    run: Run, daemon: FakeDaemon, arguments: list[str], code: str | None
) -> None:
    def refuse(_: object) -> dict[str, list[int]]:
        raise Refusal(str(code), "the name is too long")

    daemon.answers["add"] = refuse
    done = run("add", "--json", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("autodl: ")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [URL, "--limit-rate", "fast"],
        [URL, "--limit-rate", "9" * 30],
        [URL, "--priority", "1001"],
        [URL, "--on-conflict", "maybe"],
        [URL, "--no-such-option"],
        [URL, "-d", ""],
        ["http://user:secret@/x"],
    ],
)
def test_wrong_arguments_are_usage_errors_and_send_nothing(run: Run, daemon: FakeDaemon, arguments: list[str]) -> None:
    done = run("add", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("autodl: ")
    assert done.stdout == ""
    assert "secret" not in done.stderr
    assert daemon.requests == []
