"""A shell completes commands, options, values, files, and the numbers of tasks with their names."""

from __future__ import annotations

import os
import pty
import re
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_daemon import ROOT, FakeDaemon, autodl, environment, task

from autodl_lib.cli.command_table import COMMANDS
from autodl_lib.cli.completion_scripts import INSTALLED_AS, SCRIPTS, Shell
from autodl_lib.cli.completion_tasks import MOST, completable_states
from autodl_lib.contract.states import TaskState

Candidates = list[tuple[str, str, str]]
Complete = Callable[..., Candidates]

PATIENCE_S = 10
"""Far less than the 20 s that a client waits for a greeting, and far more than a completion takes."""

WITH_LIMIT = f"""
import runpy, sys
from autodl_lib.cli import completion_tasks
completion_tasks.TIME_LIMIT_S = float(sys.argv[1])
sys.argv[:2] = [{str(ROOT / "autodl.py")!r}]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Half a second is enough for a person's patience, and not for a machine that is busy with tests."""


@pytest.fixture
def complete(home: Path, daemon: FakeDaemon) -> Complete:
    """Complete a line as bash asks for it, or as another shell does."""

    def run(line: str, shell: str = "bash", limit_s: float = 60, **variables: str) -> Candidates:
        typed = {"COMP_LINE": line}
        if shell != "bash":
            words = line.split(" ")
            typed = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
        variables = {"AUTODL_SOCKET": str(daemon.path), **typed, **variables}
        done = subprocess.run(
            [sys.executable, "-c", WITH_LIMIT, str(limit_s)],
            env=environment(home, PYTHONPATH=str(ROOT), _AUTODL_COMPLETE=f"{shell}_complete", **variables),
            cwd=home,
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S if limit_s < PATIENCE_S else None,
        )
        assert done.stderr == ""
        lines = [line.split("\t") for line in done.stdout.splitlines() if line]
        return [(kind, value, description) for kind, value, description in lines]

    return run


def values(candidates: Candidates) -> list[str]:
    return [value for _, value, _ in candidates]


def with_tasks(daemon: FakeDaemon, *tasks: dict[str, Any]) -> None:
    """Answer `list` as a daemon does: the tasks of the states that are asked for, in pages of two."""

    def page(params: dict[str, Any]) -> dict[str, Any]:
        found = [one for one in tasks if one["id"] > params["after"] and one["state"] in params["states"]]
        return {"tasks": found[:2], "next": found[1]["id"] if len(found) > 2 else None}

    daemon.answers["list"] = page


@pytest.mark.parametrize("shell", Shell)
def test_commands_are_completed(shell: str, complete: Complete) -> None:
    assert values(complete("autodl ", shell)) == list(COMMANDS)
    assert values(complete("autodl st", shell)) == ["status", "stats"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_commands_and_options_have_their_meaning_where_the_shell_shows_it(shell: str, complete: Complete) -> None:
    assert complete("autodl wai", shell) == [
        ("plain", "wait", "Wait until tasks are done; the exit status says how they ended.")
    ]
    [(_, option, meaning)] = complete("autodl wait --time", shell)
    assert (option, meaning) == ("--timeout", "wait no longer")


def test_options_of_the_command_and_those_of_all_are_completed(complete: Complete) -> None:
    assert values(complete("autodl pause --")) == ["--id", "--all", "--socket", "--json", "--version", "--help"]
    assert "--private" not in values(complete("autodl daemon --"))
    assert values(complete("autodl --v")) == ["--version"]


@pytest.mark.parametrize("line", ["autodl list -s ", "autodl list --state ", "autodl list --state="])
def test_states_are_completed(line: str, complete: Complete) -> None:
    assert values(complete(line)) == [state.value for state in TaskState]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("autodl add -i ", "file"),
        ("autodl add --checksum SHA", "file"),
        ("autodl get ubuntu", "file"),
        ("autodl add --cert /etc/", "file"),
        ("autodl add -d ", "dir"),
        ("autodl daemon --state-dir /va", "dir"),
        ("autodl daemon --config /etc", "file"),
    ],
)
def test_files_and_folders_are_left_to_the_shell(line: str, kind: str, complete: Complete) -> None:
    assert [found for found, _, _ in complete(line)] == [kind]


@pytest.mark.parametrize("shell", Shell)
def test_numbers_of_tasks_come_with_their_names_and_states_the_newest_first(
    shell: str, complete: Complete, daemon: FakeDaemon
) -> None:
    with_tasks(daemon, task(17, "finished"), task(18), task(2), task(180, name=None, url="http://x.test/a/b.iso?k=1"))
    assert complete("autodl status 1", shell) == [
        ("plain", "180", "b.iso (enqueued)"),
        ("plain", "18", "file18.bin (enqueued)"),
        ("plain", "17", "file17.bin (finished)"),
    ]


@pytest.mark.parametrize(
    ("command", "offered"),
    [
        ("resume --id ", {"paused"}),
        ("retry ", {"retrying", "failed", "cancelled", "cleared"}),
        ("wait ", {"enqueued", "downloading", "retrying", "paused"}),
        ("set-url ", {"enqueued", "downloading", "retrying", "paused", "failed"}),
        ("log ", {state.value for state in TaskState}),
    ],
)
def test_only_tasks_that_the_command_is_for_are_offered(
    command: str, offered: set[str], complete: Complete, daemon: FakeDaemon
) -> None:
    with_tasks(daemon, *(task(number, state) for number, state in enumerate(TaskState, 1)))
    found = complete(f"autodl {command}")
    assert {description.partition("(")[2].rstrip(")") for _, _, description in found} == offered


def test_every_command_has_states_that_it_is_for() -> None:
    assert all(completable_states(command) for command in COMMANDS)


def test_a_number_that_is_there_already_is_not_offered_again(complete: Complete, daemon: FakeDaemon) -> None:
    with_tasks(daemon, task(1), task(2))
    assert values(complete("autodl cancel 1 ")) == ["2"]
    assert values(complete("autodl pause --id 2 --id ")) == ["1"]


def test_numbers_are_completed_behind_an_equals_sign(complete: Complete, daemon: FakeDaemon) -> None:
    with_tasks(daemon, task(17, "paused"))
    assert values(complete("autodl resume --id=1")) == ["17"]
    assert values(complete("autodl resume --id=1", "fish")) == ["--id=17"], "fish wants whole words"


def test_a_long_queue_is_not_poured_over_the_terminal(complete: Complete, daemon: FakeDaemon) -> None:
    daemon.answers["list"] = {"tasks": [task(number) for number in range(1, 1000)], "next": None}
    assert values(complete("autodl status ")) == [str(number) for number in range(999, 999 - MOST, -1)]


def test_the_socket_that_the_line_names_is_asked(complete: Complete, daemon: FakeDaemon) -> None:
    with_tasks(daemon, task(17))
    nowhere = "/nonexistent/d.sock"
    assert values(complete(f"autodl --socket {daemon.path} status ", AUTODL_SOCKET=nowhere)) == ["17"]
    assert values(complete(f"autodl status --socket {daemon.path} ", AUTODL_SOCKET=nowhere)) == ["17"]
    assert complete("autodl status ", AUTODL_SOCKET=nowhere) == []


def test_no_daemon_is_started(complete: Complete, home: Path) -> None:
    assert complete("autodl status ", AUTODL_SOCKET="") == []
    assert not (home / "runtime").exists()
    assert not (home / ".local").exists()


def test_a_socket_in_a_folder_that_others_can_enter_is_left_alone(
    complete: Complete, daemon: FakeDaemon, home: Path
) -> None:
    with_tasks(daemon, task(17))
    folder = home / "runtime" / "autodl"
    folder.mkdir(parents=True, mode=0o777)
    folder.chmod(0o777)
    (folder / "autodl.sock").symlink_to(daemon.path)
    assert complete("autodl status ", AUTODL_SOCKET="") == []
    folder.chmod(0o700)
    assert values(complete("autodl status ", AUTODL_SOCKET="")) == ["17"]


@pytest.mark.parametrize("greets", [True, False])
def test_a_daemon_that_does_not_answer_keeps_nobody_waiting(greets: bool, complete: Complete, home: Path) -> None:
    with FakeDaemon(home / "silent.sock", answers={"list": None}, hello=None if greets else b"") as silent:
        assert complete("autodl status ", limit_s=0.5, AUTODL_SOCKET=str(silent.path)) == []


def test_a_socket_that_nobody_accepts_from_keeps_nobody_waiting(complete: Complete, home: Path) -> None:
    path = str(home / "full.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(path)
        listener.listen(0)
        other.connect(path)
        assert complete("autodl status ", limit_s=0.5, AUTODL_SOCKET=path) == []


def test_what_came_in_time_is_offered(complete: Complete, daemon: FakeDaemon) -> None:
    over = threading.Event()

    def first_page_only(params: dict[str, Any]) -> dict[str, Any]:
        if params["after"]:
            over.wait()
        return {"tasks": [task(1)], "next": 1}

    daemon.answers["list"] = first_page_only
    try:
        assert values(complete("autodl status ", limit_s=5)) == ["1"]
    finally:
        over.set()


def test_a_name_can_not_steer_the_terminal(complete: Complete, daemon: FakeDaemon) -> None:
    with_tasks(daemon, task(17, name="a\n\x1b[2Jplain\trm -rf\t$(touch pwned)"))
    [(_, value, description)] = complete("autodl status ")
    assert value == "17"
    assert "\x1b" not in description


@pytest.mark.parametrize("line", ["", "autodl", "autodl nonsense ", "autodl status 'x", "autodl list -s", "autodl -"])
def test_nothing_that_is_typed_is_an_error(line: str, complete: Complete, daemon: FakeDaemon) -> None:
    with_tasks(daemon)
    complete(line)


@pytest.mark.parametrize("shell", Shell)
def test_the_script_of_a_shell_is_printed(shell: Shell, home: Path) -> None:
    assert autodl("completion", shell, cwd=home).stdout == SCRIPTS[shell]
    assert autodl(cwd=home, _AUTODL_COMPLETE=f"{shell}_source").stdout == SCRIPTS[shell]


def test_an_unknown_shell_is_an_error_of_usage(home: Path) -> None:
    done = autodl("completion", "csh", cwd=home)
    assert done.returncode == 2
    assert "'csh' is not one of bash, zsh, fish" in done.stderr


@pytest.mark.parametrize("shell", Shell)
def test_the_scripts_for_packages_are_current(shell: Shell) -> None:
    installed = ROOT / "completions" / INSTALLED_AS[shell]
    assert installed.read_text("ascii") == SCRIPTS[shell], "run: python -m autodl_lib.cli.completion completions/"


# From here on, real shells.


@pytest.fixture
def program(home: Path, daemon: FakeDaemon) -> Iterator[dict[str, str]]:
    """An environment whose PATH has an `autodl`, with two tasks at its daemon."""
    with_tasks(daemon, task(17, name="$(touch pwned) a.iso"), task(18, name="b.iso"))
    (home / "bin").mkdir()
    (home / "with_limit.py").write_text(WITH_LIMIT)
    script = home / "bin" / "autodl"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {home / "with_limit.py"} 60 "$@"\n')
    script.chmod(0o755)
    path = f"{script.parent}:{os.environ['PATH']}"
    yield environment(home, PATH=path, PYTHONPATH=str(ROOT), AUTODL_SOCKET=str(daemon.path), TERM="xterm", PS1="> ")
    assert not (home / "pwned").exists()


def bash(line: str, program: dict[str, str], kind: int = 9) -> list[str]:
    script = f"""
        compopt() {{ echo "compopt $*"; }}
        source {ROOT / "completions/bash/autodl"}
        COMP_LINE=$1 COMP_POINT=${{#1}} COMP_TYPE={kind}
        _autodl autodl
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    command = ["bash", "--norc", "-c", script, "bash", line]
    done = subprocess.run(command, env=program, cwd=program["HOME"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_bash_shows_names_where_there_is_a_choice(program: dict[str, str]) -> None:
    assert bash("autodl status 1", program) == ["18  b.iso (enqueued)", "17  $(touch pwned) a.iso (enqueued)"]


def test_bash_inserts_a_number_alone(program: dict[str, str]) -> None:
    assert bash("autodl status 17", program) == ["17"]
    assert bash("autodl status 1", program, kind=ord("%")) == ["18", "17"]


def test_bash_completes_files_itself(program: dict[str, str]) -> None:
    assert bash("autodl add -i x", program) == ["compopt -o default", ""]


def test_fish_shows_numbers_with_names(program: dict[str, str]) -> None:
    script = f'source {ROOT / "completions/fish/autodl.fish"}; complete -C "autodl status "'
    command = ["fish", "--no-config", "-c", script]
    done = subprocess.run(command, env=program, cwd=program["HOME"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["18\tb.iso (enqueued)", "17\t$(touch pwned) a.iso (enqueued)"]


@pytest.mark.parametrize(("typed", "completed"), [("autodl statu", "status"), ("autodl status 17", "17 ")])
def test_zsh_completes_at_the_press_of_a_key(typed: str, completed: str, program: dict[str, str]) -> None:
    with Terminal(["zsh", "-f", "-i"], program) as zsh:
        zsh.type(f"autoload -Uz compinit && compinit -u && source {ROOT / 'completions/zsh/_autodl'} && echo re''ady\n")
        zsh.await_text("ready")
        zsh.type(f"{typed}\t")
        zsh.await_text(completed)


def test_zsh_shows_numbers_with_names(program: dict[str, str]) -> None:
    with Terminal(["zsh", "-f", "-i"], program) as zsh:
        zsh.type(f"autoload -Uz compinit && compinit -u && source {ROOT / 'completions/zsh/_autodl'} && echo re''ady\n")
        zsh.await_text("ready")
        zsh.type("autodl status \t\t")
        zsh.await_text("b.iso (enqueued)")


class Terminal:
    """A shell with a terminal of its own."""

    def __init__(self, command: list[str], variables: dict[str, str]) -> None:
        self._seen = ""
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(variables["HOME"])
            os.execvpe(command[0], command, variables)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._terminal)
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)

    def type(self, text: str) -> None:
        self._seen = ""
        os.write(self._terminal, text.encode())

    def await_text(self, text: str) -> None:
        """Read until the text has been shown."""
        while text not in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._seen):
            ready, _, _ = select.select([self._terminal], [], [], 20)
            assert ready, f"{text!r} was not shown: {self._seen!r}"
            self._seen += os.read(self._terminal, 65536).decode("utf-8", "replace")
