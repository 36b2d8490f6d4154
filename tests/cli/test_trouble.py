"""Whatever goes wrong, the command line answers with a sentence and an exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fake_daemon import ROOT, FakeDaemon, Run, autodl, environment, task

URL = "http://example.test/a"


def test_no_argument_shows_the_help_with_all_commands(home: Path) -> None:
    done = autodl(cwd=home)
    assert done.returncode == 0
    for name in ("get", "add", "max-tasks", "daemon", "explain"):
        assert f"\n  {name} " in done.stdout


def test_every_command_has_help_and_the_common_options(home: Path) -> None:
    from autodl_lib.cli.command_table import COMMANDS

    for name in COMMANDS:
        done = autodl(name, "--help", cwd=home)
        assert done.returncode == 0, name
        assert "--socket PATH" in done.stdout
        assert "--json" in done.stdout
        assert "--version" in done.stdout


@pytest.mark.parametrize("command", [(), ("list",), ("get",), ("status",), ("daemon",), ("priority", "1")])
def test_version_is_printed_by_every_command(home: Path, command: tuple[str, ...]) -> None:
    done = autodl(*command, "--version", cwd=home)
    assert (done.returncode, done.stdout, done.stderr) == (0, "autodl 0.1.0\n", "")


def test_an_unknown_command_names_the_nearest(home: Path) -> None:
    done = autodl("statsu", cwd=home)
    assert done.returncode == 2
    assert done.stderr == "autodl: no such command: statsu; did you mean stats?\nautodl: try 'autodl --help'\n"


def test_an_unknown_option_is_a_usage_error_with_a_hint(home: Path) -> None:
    done = autodl("add", "--fast", cwd=home)
    assert done.returncode == 2
    # click 8.1 and later ones word it a little differently.
    assert done.stderr.startswith("autodl: no such option")
    assert "--fast" in done.stderr
    assert done.stderr.endswith("\nautodl: try 'autodl add --help'\n")


def test_no_daemon_on_a_given_socket_says_how_to_start_one(home: Path) -> None:
    path = f"{home}/none.sock"
    for options in ({"AUTODL_SOCKET": path}, {}):
        done = autodl("list", *([] if options else ["--socket", path]), cwd=home, **options)
        assert done.returncode == 3
        assert done.stderr.startswith(f"autodl: no daemon answers on {path}")
        assert f"`autodl daemon --socket {path}`" in done.stderr
    assert not (home / "runtime").exists()


def test_a_stale_socket_is_no_daemon(home: Path) -> None:
    with FakeDaemon(home / "stale.sock"):
        pass
    assert autodl("list", "--socket", "stale.sock", cwd=home).returncode == 3


def test_a_socket_path_over_the_limit_is_explained(home: Path) -> None:
    path = "/tmp/" + "x" * 110
    for done in (autodl("list", "--socket", path, cwd=home), autodl("list", cwd=home, AUTODL_SOCKET=path)):
        assert done.returncode == 2
        assert "has at most 107 bytes, this one has 115" in done.stderr


@pytest.mark.parametrize(
    "hello",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b"[1]\n",
        b"{}\n",
        b'{"jsonrpc":"2.0","method":"hello","params":{}}\n',
        b'{"jsonrpc":"2.0","method":"hello","params":{"protocol":2,"version":"\x1b[2J"}}\n',
        b'{"jsonrpc":"2.0","id":null,"error":{"code":1}}\n',
    ],
)
def test_what_is_no_daemon_of_ours_is_said_to_be_none(home: Path, hello: bytes) -> None:
    with FakeDaemon(home / "d.sock", {"list": {}}, hello=hello):
        done = autodl("list", "--socket", "d.sock", cwd=home)
    assert done.returncode in (1, 3)
    assert done.stderr.startswith("autodl: ")
    assert "\x1b" not in done.stderr
    assert "internal error" not in done.stderr


def test_a_refusal_in_place_of_the_greeting_is_passed_on(home: Path) -> None:
    hello = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no","data":{"code":"not_allowed"}}}\n'
    with FakeDaemon(home / "d.sock", hello=hello):
        done = autodl("list", "--socket", "d.sock", cwd=home)
    assert (done.returncode, done.stderr) == (5, "autodl: no\n")


GARBAGE: list[bytes] = [
    b"\n",
    b"",
    b"nonsense\n",
    b"null\n",
    b'{"jsonrpc":"2.0","id":1}\n',
    b'{"jsonrpc":"2.0","id":1,"result":null}\n',
    b'{"jsonrpc":"2.0","id":1,"result":[]}\n',
    b'{"jsonrpc":"2.0","id":1,"result":{}}\n',
    b'{"jsonrpc":"2.0","id":2,"result":{"ids":[1]}}\n',
    b'{"jsonrpc":"2.0","id":1,"result":{"id":"x","tasks":[7],"next":"x","ids":7,"events":[1],"held":1}}\n',
    b'{"jsonrpc":"2.0","id":1,"result":{"tasks":{"a":"b"},"responses":{},"cleared":1.5}}\n',
    b'{"jsonrpc":"2.0","id":1,"error":"no"}\n',
    b'{"jsonrpc":"2.0","id":1,"error":{"data":[]}}\n',
    b'{"jsonrpc":"2.0","method":"task","params":{"id":17}}\n',
    b'{"jsonrpc":"2.0","method":"task","params":[]}\n',
    b'{"jsonrpc":"2.0","id":1,"result":{"tasks":NaN}}\n',
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_from_the_socket_is_no_internal_error(run: Run, daemon: FakeDaemon, garbage: bytes) -> None:
    commands = {
        "status": ["status", "1"],
        "list": ["list"],
        "log": ["log", "1"],
        "explain": ["explain", "1"],
        "add": ["add", URL],
        "pause": ["pause"],
        "clear": ["clear"],
        "stats": ["stats"],
    }
    for method, arguments in commands.items():
        daemon.answers[method] = garbage
        done = run(*arguments)
        assert done.returncode in (1, 3), (arguments, done)
        assert done.stderr.startswith("autodl: "), (arguments, done)
        assert "internal error" not in done.stderr, (arguments, done)


def test_nobody_reading_the_output_is_no_error_message(home: Path, daemon: FakeDaemon) -> None:
    daemon.answers["list"] = {"tasks": [task(number) for number in range(1, 20_000)], "next": None}
    with subprocess.Popen(
        [sys.executable, str(ROOT / "autodl.py"), "list"],
        env=environment(home, AUTODL_SOCKET=str(daemon.path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as client:
        assert client.stdout is not None
        assert client.stderr is not None
        client.stdout.readline()
        client.stdout.close()
        assert client.stderr.read() == b""
    assert client.returncode == 141


def test_a_current_folder_that_is_gone_matters_only_where_it_is_meant(home: Path, daemon: FakeDaemon) -> None:
    daemon.answers["add"] = {"ids": [1]}

    def add(folder: str) -> subprocess.CompletedProcess[str]:
        (home / "gone").mkdir()
        return subprocess.run(
            [
                "sh",
                "-c",
                'rmdir "$PWD" && exec "$@"',
                "sh",
                sys.executable,
                str(ROOT / "autodl.py"),
                "add",
                URL,
                folder,
            ],
            cwd=home / "gone",
            env=environment(home, AUTODL_SOCKET=str(daemon.path)),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert add("/data").stdout == "1\n"
    done = add("here")
    assert done.returncode == 2
    assert done.stderr.startswith("autodl: the current folder is gone; name another one with --dir\n")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_nobody_reading_is_noticed_also_while_nothing_happens(
    home: Path, daemon: FakeDaemon, options: tuple[str, ...]
) -> None:
    daemon.watches = [[task()]]
    with subprocess.Popen(
        [sys.executable, str(ROOT / "autodl.py"), "watch", *options],
        env=environment(home, AUTODL_SOCKET=str(daemon.path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as client:
        assert client.stdout is not None
        client.stdout.readline()
        client.stdout.close()
        assert client.wait(timeout=60) == 141


def on_a_full_disk(
    *arguments: str, home: Path, daemon: FakeDaemon, unbuffered: str = ""
) -> subprocess.CompletedProcess[str]:
    with open("/dev/full", "wb") as full:
        return subprocess.run(
            [sys.executable, str(ROOT / "autodl.py"), *arguments],
            env=environment(home, AUTODL_SOCKET=str(daemon.path), PYTHONUNBUFFERED=unbuffered),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )


CAN_NOT_WRITE = "autodl: can't write to standard output: No space left on device"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments", [("list",), ("list", "--json"), ("max-tasks",), ("wait", "1"), ("--version",), ("list", "--help")]
)
def test_output_that_can_not_be_written_is_an_error(
    home: Path, daemon: FakeDaemon, arguments: tuple[str, ...], unbuffered: str
) -> None:
    # More than fits a buffer, and less.
    many = 1000 if "--json" in arguments else 1
    daemon.answers.update({"list": {"tasks": [task()] * many, "next": None}, "max_tasks": {"max_tasks_num": 3}})
    daemon.watches = [[task(1), task(1, "finished")]]
    done = on_a_full_disk(*arguments, home=home, daemon=daemon, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (1, CAN_NOT_WRITE + "\n")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_ids_that_can_not_be_printed_are_in_the_message(
    home: Path, daemon: FakeDaemon, options: tuple[str, ...]
) -> None:
    daemon.answers["add"] = {"ids": [17, 18, 19, 25]}
    done = on_a_full_disk("add", *options, *[URL] * 4, home=home, daemon=daemon)
    assert (done.returncode, done.stderr) == (1, CAN_NOT_WRITE + "; queued all the same: 17 to 19, 25\n")


def test_a_list_whose_ids_can_not_be_printed_is_not_sent_to_its_end(home: Path, daemon: FakeDaemon) -> None:
    counter = iter(range(1, 10**9))
    daemon.answers["add"] = lambda params: {"ids": [next(counter) for _ in params["urls"]]}
    (home / "urls").write_text(f"{URL}\n" * 50_000)
    done = on_a_full_disk("add", "-i", str(home / "urls"), home=home, daemon=daemon)
    queued = sum(len(params["urls"]) for params in daemon.params("add"))
    assert queued < 50_000
    assert (done.returncode, done.stderr) == (1, CAN_NOT_WRITE + f"; queued all the same: 1 to {queued}\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("-i", "-"), "can't read stdin: it is closed"),
        (("-M", "-"), "can't read stdin: it is closed"),
        ((URL, "--user", "bob", "--password-file", "-"), "can't read the password from stdin: it is closed"),
    ],
)
def test_a_closed_stdin_can_not_be_read(
    home: Path, daemon: FakeDaemon, arguments: tuple[str, ...], complaint: str
) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, str(ROOT / "autodl.py"), "add", *arguments],
        env=environment(home, AUTODL_SOCKET=str(daemon.path)),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"autodl: {complaint}\n")
    assert daemon.requests == []


def test_an_internal_error_is_one_line_and_a_traceback_only_on_request(home: Path, daemon: FakeDaemon) -> None:
    program = (
        "import autodl_lib.cli.commands.one_task as one_task\n"
        "one_task._status = None\n"
        "from autodl_lib.cli.main import run\n"
        "raise SystemExit(run(['status', '1'], entry='', run_daemon=None))\n"
    )
    for debug in (False, True):
        variables = {"AUTODL_DEBUG": "1"} if debug else {}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment(home, PYTHONPATH=str(ROOT), AUTODL_SOCKET=str(daemon.path), **variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 1
        assert "autodl: internal error: TypeError" in done.stderr
        assert ("Traceback" in done.stderr) is debug


def test_a_latin_1_terminal_gets_what_it_can_show(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers["explain"] = {"id": 1, "reason": "waits for \u4f60 and \u00e9"}
    done = run("explain", "1", PYTHONIOENCODING="ascii")
    assert done.stdout == "waits for ? and ?\n"
