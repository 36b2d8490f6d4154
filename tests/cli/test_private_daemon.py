"""Which socket is used, whose folders are trusted, and how a private daemon comes to life when it is needed."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_daemon import autodl

from autodl_lib.client import locate as location
from autodl_lib.client.locate import Origin, locate, make_private, private_folders
from autodl_lib.client.opener import Opener
from autodl_lib.contract.errors import NoDaemon, NotAllowed

LISTENS = """
import os, socket, sys, threading, time
arguments = dict(zip(sys.argv[3::2], sys.argv[4::2]))
assert sys.argv[1:3] == ["daemon", "--private"], sys.argv
with open(os.path.join(arguments["--state-dir"], "starts"), "a") as starts:
    starts.write(f"{os.getpid()} {os.getcwd()} {os.getsid(0)}\\n")
print("a word for the log", file=sys.stderr)
listener = socket.socket(socket.AF_UNIX)
if os.path.exists(arguments["--socket"]):
    os.unlink(arguments["--socket"])
listener.bind(arguments["--socket"])
listener.listen()
os.write(1, b"ready\\n")
os.close(1)
while True:
    connection, _ = listener.accept()
    connection.sendall(b'{"jsonrpc":"2.0","method":"hello","params":{"protocol":1,"version":"0"}}\\n')
"""
FAILS = "import sys; print('the database is corrupt', file=sys.stderr); sys.exit(7)"
WRONG_WORD = "import os, time; os.write(1, b'hello\\n'); time.sleep(60)"


@pytest.fixture(autouse=True)
def _own_places(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "runtime"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("AUTODL_SOCKET", raising=False)
    monkeypatch.setattr(location, "SYSTEM_SOCKET", str(home / "system.sock"))


@pytest.fixture
def state(home: Path) -> Iterator[Path]:
    folder = home / ".local/state/autodl"
    yield folder
    for pid in started(folder):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def started(state: Path) -> list[int]:
    starts = state / "starts"
    return [int(line.split()[0]) for line in starts.read_text().splitlines()] if starts.exists() else []


def opener(home: Path, program: str) -> Opener:
    (home / "program.py").write_text(program)
    return Opener(socket=None, entry=str(home / "program.py"))


def test_the_order_is_explicit_environment_system_private(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate(None).origin is Origin.PRIVATE
    assert locate(None).socket == str(home / "runtime/autodl/autodl.sock")
    (home / "system.sock").touch()
    assert locate(None).origin is Origin.SYSTEM
    monkeypatch.setenv("AUTODL_SOCKET", "/e.sock")
    assert locate(None).origin is Origin.ENVIRONMENT
    assert locate("/x.sock").origin is Origin.EXPLICIT
    monkeypatch.setenv("AUTODL_SOCKET", "")
    assert locate(None).origin is Origin.SYSTEM


def test_without_a_runtime_folder_it_is_that_of_the_uid_or_of_the_state(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    by_uid = f"/run/user/{os.geteuid()}"
    state = f"{home}/.local/state/autodl"
    expected = f"{by_uid}/autodl" if os.path.isdir(by_uid) else f"{state}/run"
    assert private_folders().runtime_dir == expected
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    assert private_folders().state_dir == "/s/autodl"
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    assert private_folders().state_dir == state


def test_a_runtime_folder_too_deep_for_a_socket_is_replaced(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"{home}/{'x' * 100}")
    folders = private_folders()
    assert folders.socket == f"/tmp/autodl-{os.geteuid()}/autodl.sock"
    assert folders.runtime_dir.startswith(str(home))


def test_private_folders_are_made_for_their_owner_only(home: Path) -> None:
    make_private(str(home / "a/b/c"))
    assert [oct((home / part).stat().st_mode & 0o777) for part in ("a", "a/b", "a/b/c")] == ["0o700"] * 3


def test_a_folder_that_others_can_enter_is_refused(home: Path) -> None:
    (home / "open").mkdir()
    (home / "open").chmod(0o750)
    with pytest.raises(NotAllowed, match="chmod 700"):
        make_private(str(home / "open"))


@pytest.mark.parametrize("place", ["home/.local", "home"])
def test_a_folder_below_a_link_that_leads_nowhere_is_refused(home: Path, place: str) -> None:
    base = home / "elsewhere"
    (base / place).parent.mkdir(parents=True)
    (base / place).symlink_to("/nowhere")
    with pytest.raises(NotAllowed, match=r"can't make the folder .*: No such file"):
        make_private(str(base / "home/.local/state/autodl"))


def test_a_link_or_a_file_in_place_of_the_folder_is_refused(home: Path) -> None:
    (home / "real").mkdir(mode=0o700)
    (home / "link").symlink_to(home / "real")
    (home / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(NotAllowed, match="is not a folder"):
            make_private(str(home / name))


def test_a_folder_of_another_user_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "theirs").mkdir(mode=0o700)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(NotAllowed, match=f"belongs to uid {me}, not to you"):
        make_private(str(home / "theirs"))


def test_a_refused_folder_is_exit_status_5(home: Path) -> None:
    (home / "runtime/autodl").mkdir(parents=True, mode=0o755)
    (home / "runtime/autodl").chmod(0o755)
    done = autodl("list", cwd=home)
    assert done.returncode == 5
    assert "chmod 700" in done.stderr


def test_a_private_daemon_is_started_once_and_detached(home: Path, state: Path) -> None:
    open_connection = opener(home, LISTENS)
    open_connection().close()
    open_connection().close()
    [line] = (state / "starts").read_text().splitlines()
    pid, folder, session = line.split()
    assert folder == "/"
    assert session == pid
    assert (state / "daemon.log").read_text() == "a word for the log\n"
    assert (state / "daemon.log").stat().st_mode & 0o777 == 0o600


def test_clients_that_start_it_at_once_get_one_daemon(home: Path, state: Path) -> None:
    open_connection = opener(home, LISTENS)
    errors: list[BaseException] = []

    def connect() -> None:
        try:
            open_connection().close()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    clients = [threading.Thread(target=connect) for _ in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert errors == []
    assert len(started(state)) == 1


def test_a_stale_socket_is_replaced_by_a_new_daemon(home: Path, state: Path) -> None:
    make_private(str(home / "runtime/autodl"))
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(home / "runtime/autodl/autodl.sock"))
    opener(home, LISTENS)().close()
    assert len(started(state)) == 1


def test_a_daemon_that_is_just_ending_is_waited_for(home: Path, state: Path) -> None:
    make_private(str(home / "runtime/autodl"))
    ending = socket.socket(socket.AF_UNIX)
    ending.bind(str(home / "runtime/autodl/autodl.sock"))
    ending.listen()

    def end() -> None:
        for _ in range(3):
            ending.accept()[0].close()
        ending.close()

    thread = threading.Thread(target=end)
    thread.start()
    opener(home, LISTENS)().close()
    thread.join()
    assert len(started(state)) == 1


def test_a_failed_start_shows_the_end_of_the_log_and_where_it_is(home: Path, state: Path) -> None:
    with pytest.raises(NoDaemon) as caught:
        opener(home, FAILS)()
    message = str(caught.value)
    assert "did not start (exit status 7)" in message
    assert f"{state}/daemon.log" in message
    assert message.endswith("\n  the database is corrupt")


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_program_that_says_something_else_than_ready_is_no_daemon(home: Path) -> None:
    with pytest.raises(NoDaemon, match="in place of ready"):
        opener(home, WRONG_WORD)()
