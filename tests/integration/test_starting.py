"""How a daemon starts, or refuses to, with a sentence and an exit status; and what it leaves untouched then."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
from pathlib import Path

import pytest
from support.daemon import Daemon, MakeDaemon
from support.nginx import Nginx
from support.waiting import wait_until


def refused(daemon: Daemon) -> tuple[int, str]:
    """Start a daemon that must end by itself; return its exit status and what it said."""
    before = len(daemon.log())
    status = daemon.launch().wait(60)
    said = daemon.log()[before:]
    assert said.startswith("autodl: "), said
    assert said.count("\n") == 1, said
    return status, said


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("max_task_num = 5\n", "did you mean max_tasks_num?"),
        ("[transfer]\nconnection = 5\n", "did you mean transfer.connections?"),
        ("[retries]\nmax_attempts = 5\n", "unknown key retries"),
        ("max_tasks_num = 0\n", "max_tasks_num must be from 1 to 1000"),
        ("max_tasks_num = true\n", "max_tasks_num must be an integer"),
        ('[transfer]\ndurable = "yes"\n', "transfer.durable must be true or false"),
        ("transfer = 5\n", "transfer must be a table"),
        ("max_tasks_num = \n", "autodl.toml"),
        pytest.param(f"x = {'[' * 100_000}", "nested too deeply", id="nested"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_key(make_daemon: MakeDaemon, config: str, words: str) -> None:
    daemon = make_daemon(config=config)
    status, said = refused(daemon)
    assert status == 2
    assert words in said
    assert str(daemon.config) in said


def test_a_configuration_that_is_not_there_is_refused(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.config.unlink()
    status, said = refused(daemon)
    assert (status, str(daemon.config) in said) == (2, True)


def test_a_configuration_that_is_not_utf_8_is_refused(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.config.write_bytes(b'x = "\xff\xfe"\n')
    assert refused(daemon)[0] == 2


def spoil_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[:16] = b"not a database!!"
    path.write_bytes(data)


def spoil_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)


def make_newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def make_foreign(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmark (url TEXT)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_header, "is damaged"),
        (spoil_pages, "is damaged"),
        (make_newer, "has version 99"),
        (make_foreign, "not autodl's"),
    ],
)
def test_a_queue_that_can_not_be_used_is_refused_and_left_as_it_is(  # type: ignore[no-untyped-def]
    make_daemon: MakeDaemon, spoil, words: str
) -> None:
    daemon = make_daemon().start()
    daemon.add("--paused", *["http://127.0.0.1:1/x"] * 300)
    daemon.stop()
    queue = daemon.state_dir / "queue.db"
    spoil(queue)
    before = queue.read_bytes()
    status, said = refused(daemon)
    assert status == 1
    assert words in said
    assert str(queue) in said
    assert queue.read_bytes() == before
    assert not daemon.socket.exists()


def test_a_queue_that_is_no_file_is_refused(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    (daemon.state_dir / "queue.db").mkdir(parents=True)
    daemon.state_dir.chmod(0o700)
    assert refused(daemon)[0] == 1


def test_a_state_folder_that_others_can_write_to_is_refused(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.state_dir.mkdir()
    daemon.state_dir.chmod(0o777)
    status, said = refused(daemon)
    assert (status, f"chmod 700 {daemon.state_dir}" in said) == (2, True)


def test_a_second_daemon_on_the_same_state_folder_is_refused(daemon: Daemon, make_daemon: MakeDaemon) -> None:
    second = make_daemon(name="second")
    second.state_dir = daemon.state_dir
    status, said = refused(second)
    assert status == 1
    assert str(daemon.socket) in said
    assert daemon.ok("max-tasks") == "10\n"


def test_a_second_daemon_on_the_same_socket_is_refused(daemon: Daemon, make_daemon: MakeDaemon) -> None:
    second = make_daemon(name="second")
    second.socket = daemon.socket
    status, said = refused(second)
    assert status == 1
    assert f"another daemon answers on {daemon.socket}" in said
    assert daemon.ok("max-tasks") == "10\n"


def test_a_stale_socket_is_replaced(daemon: Daemon) -> None:
    daemon.kill()
    assert daemon.socket.is_socket()
    daemon.start()
    assert daemon.ok("max-tasks") == "10\n"


def test_a_file_in_the_socket_s_place_is_left_alone(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.socket.write_text("mine")
    status, said = refused(daemon)
    assert (status, "is no socket" in said) == (2, True)
    assert daemon.socket.read_text() == "mine"


def test_a_socket_path_that_is_too_long_is_refused(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    daemon.socket = daemon.folder / ("x" * 120)
    status, said = refused(daemon)
    assert status == 2
    assert "107 bytes" in said
    done = daemon.autodl("--socket", str(daemon.socket), "list")
    assert done.returncode in (2, 3)
    assert "107" in done.stderr


def test_a_number_of_tasks_that_can_not_be_is_a_usage_error(daemon: Daemon) -> None:
    for number in ("0", "1001", "many"):
        done = daemon.autodl("daemon", number)
        assert done.returncode == 2
        assert done.stderr.startswith("autodl: ")


def test_hangup_reloads_the_configuration(daemon: Daemon) -> None:
    daemon.config.write_text("max_tasks_num = 3\n")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: daemon.ok("max-tasks") == "3\n", "the new number counts", seen=daemon.log_end)


def test_a_wrong_configuration_at_hangup_changes_nothing_and_is_said(daemon: Daemon) -> None:
    daemon.config.write_text("max_task_num = 3\n")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "did you mean max_tasks_num?" in daemon.log(), "the log names the key", seen=daemon.log_end)
    assert daemon.ok("max-tasks") == "10\n"


def test_a_configuration_that_is_a_pipe_at_hangup_is_not_waited_for(daemon: Daemon) -> None:
    daemon.config.unlink()
    os.mkfifo(daemon.config)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "no file to read settings from" in daemon.log(), "it is said", seen=daemon.log_end)
    assert daemon.ok("max-tasks") == "10\n"


def test_the_number_of_the_command_line_wins_over_the_file_s(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("4", config="max_tasks_num = 3\n").start()
    assert daemon.ok("max-tasks") == "4\n"
    daemon.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    wait_until(lambda: "the configuration is reloaded" in daemon.log(), "it is reloaded", seen=daemon.log_end)
    assert daemon.ok("max-tasks") == "4\n"


def test_a_stopped_daemon_keeps_parts_and_the_next_one_goes_on_from_them(daemon: Daemon, nginx: Nginx) -> None:
    served = nginx.file("start/stop.bin", 3_000_000, rate="600k")
    task_id = daemon.add_one(served.slow_url)
    daemon.await_bytes(task_id, 500_000)
    assert daemon.stop() == 0
    assert not daemon.socket.exists()
    assert "did not end in time" not in daemon.log()
    assert daemon.names() == [".stop.bin.autodl-ctl", ".stop.bin.autodl-part"]
    daemon.start()
    task = daemon.await_state(task_id, "finished")
    assert (daemon.files / "stop.bin").read_bytes() == served.data
    assert task["error"] is None
    first, second = nginx.fetches("stop.bin", at_least=2)
    assert (first.status, second.status) == (200, 206)
    assert second.body_bytes <= 3_000_000 - 500_000
    assert daemon.names() == ["stop.bin"]


def test_it_stops_with_clients_connected_and_watching(daemon: Daemon, nginx: Nginx) -> None:
    task_id = daemon.add_one(nginx.file("start/watched.bin", 3_000_000).slow_url)
    daemon.await_bytes(task_id)
    with daemon.connect() as wire:
        wire.call("watch", ids=[task_id])
        assert daemon.stop() == 0
        while wire.read() is not None:
            pass


def test_its_socket_is_open_to_all_users_and_its_state_to_none(daemon: Daemon) -> None:
    assert daemon.socket.stat().st_mode & 0o777 == 0o666
    assert daemon.state_dir.stat().st_mode & 0o777 == 0o700
    assert (daemon.state_dir / "queue.db").stat().st_mode & 0o777 == 0o600


def test_a_socket_that_is_taken_by_something_silent_is_not_taken_away(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(daemon.socket))
        other.listen()
        status, _ = refused(daemon)
    assert status == 1
    assert daemon.socket.is_socket()


def test_a_copied_state_folder_opens_elsewhere(daemon: Daemon, make_daemon: MakeDaemon) -> None:
    daemon.add("--paused", "http://127.0.0.1:1/x", "http://127.0.0.1:1/y")
    daemon.stop()
    second = make_daemon(name="second")
    shutil.copytree(daemon.state_dir, second.state_dir, ignore=shutil.ignore_patterns("*.sock"))
    second.start()
    assert [task["url"] for task in second.tasks()] == ["http://127.0.0.1:1/x", "http://127.0.0.1:1/y"]


def test_what_workers_run_is_loaded_before_they_are_forked(daemon: Daemon, nginx: Nginx) -> None:
    daemon.await_settled(daemon.add(nginx.file("byte.bin", 1).url))
    forkserver = daemon.family().forkserver
    assert forkserver is not None
    assert any("pycurl" in mapping.path for mapping in forkserver.memory_maps())


def test_no_library_that_speaks_to_networks_is_in_the_supervisor(daemon: Daemon, nginx: Nginx) -> None:
    daemon.await_state(daemon.add_one(nginx.file("start/mapped.bin", 10).url), "finished")
    libraries = {Path(line.split()[-1]).name for line in Path(f"/proc/{daemon.pid}/maps").read_text().splitlines()}
    assert any(name.startswith("libsqlite3") for name in libraries), "they can be seen"
    assert not [name for name in libraries if name.startswith(("libcurl", "libssl", "libcrypto"))]


def test_a_socket_that_another_has_put_in_the_place_of_its_own_stays(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon().start()
    daemon.socket.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(daemon.socket))
        assert daemon.stop() == 0
        assert daemon.socket.is_socket()
    daemon.socket.unlink()
