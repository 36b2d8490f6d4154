"""The private daemon: it starts when a client needs it, once, in folders of its user's own, and ends when idle."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.daemon import AUTODL, Daemon, MakeDaemon
from support.nginx import Nginx
from support.processes import marked
from support.waiting import wait_until

SYSTEM_SOCKET = Path("/run/autodl/autodl.sock")


class Home:
    """A user's environment without a system daemon."""

    def __init__(self, daemon: Daemon, environment: dict[str, str]) -> None:
        self._daemon = daemon
        self.environment = {**daemon.environment(), **environment}
        self.folder = daemon.home

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*AUTODL, *arguments], capture_output=True, text=True, env=self.environment, cwd=self.folder, timeout=60
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*AUTODL, *arguments], stdout=subprocess.PIPE, text=True, env=self.environment, cwd=self.folder
        )

    def supervisors(self) -> list[int]:
        found = {}
        for process in marked(self._daemon.mark):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "--private" in process.cmdline():
                    found[process.pid] = process.ppid()
        # A child that is about to become another program has the command line of its parent still.
        return [pid for pid, parent in found.items() if parent not in found]

    def log(self) -> str:
        return "".join(path.read_text() for path in self.folder.rglob("*.log"))

    def end(self) -> None:
        for pid in self.supervisors():
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not marked(self._daemon.mark), "the private daemon ends", seen=self.log)


@pytest.fixture
def home(make_daemon: MakeDaemon) -> Iterator[Home]:
    assert not SYSTEM_SOCKET.exists(), "a system daemon runs on this machine: clients would talk to it"
    folder = make_daemon().home
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    made = Home(make_daemon(), {"XDG_RUNTIME_DIR": str(runtime)})
    yield made
    made.end()


def test_the_first_client_starts_it_and_the_second_finds_it(home: Home, nginx: Nginx) -> None:
    served = nginx.file("private/first.bin", 1000)
    done = home.run("add", served.url, ".", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    [supervisor] = home.supervisors()
    [task_id] = json.loads(done.stdout)["ids"]
    assert home.run("wait", str(task_id)).returncode == 0
    assert (home.folder / "first.bin").read_bytes() == served.data
    assert home.supervisors() == [supervisor]


def test_get_downloads_with_no_set_up_at_all(home: Home, nginx: Nginx) -> None:
    served = nginx.file("private/get.bin", 200_000)
    done = home.run("get", served.url)
    assert done.returncode == 0, done.stderr
    assert (home.folder / "get.bin").read_bytes() == served.data


def test_clients_that_start_it_at_the_same_time_get_one_daemon(home: Home) -> None:
    clients = [home.start("add", f"http://127.0.0.1:1/{number}", ".", "--paused") for number in range(5)]
    printed = [client.communicate(timeout=60)[0] for client in clients]
    assert [client.returncode for client in clients] == [0] * 5
    assert sorted(int(text) for text in printed) == [1, 2, 3, 4, 5]
    assert len(home.supervisors()) == 1


def test_its_folders_are_its_user_s_alone(home: Home) -> None:
    assert home.run("list").returncode == 0
    for folder in (home.folder / "runtime" / "autodl", home.folder / ".local" / "state" / "autodl"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    socket = home.folder / "runtime" / "autodl" / "autodl.sock"
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600


def test_it_works_without_a_runtime_folder(home: Home) -> None:
    del home.environment["XDG_RUNTIME_DIR"]
    done = home.run("add", "http://127.0.0.1:1/x", ".", "--paused")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert home.run("list").returncode == 0
    assert len(home.supervisors()) == 1


def test_a_runtime_folder_that_others_may_enter_is_refused(home: Home) -> None:
    open_folder = home.folder / "runtime" / "autodl"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    done = home.run("list")
    assert done.returncode != 0
    assert str(open_folder) in done.stderr
    assert home.supervisors() == []


def test_a_client_with_another_runtime_folder_finds_it(home: Home) -> None:
    """As before a login that makes one, and after."""
    assert home.run("add", "--paused", "http://127.0.0.1:1/x").returncode == 0
    [supervisor] = home.supervisors()
    other = home.folder / "other-runtime"
    other.mkdir(mode=0o700)
    home.environment["XDG_RUNTIME_DIR"] = str(other)
    done = home.run("list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)["tasks"]) == 1
    assert home.supervisors() == [supervisor]


def test_one_whose_runtime_folder_was_removed_makes_way_for_another_with_its_queue(home: Home) -> None:
    """As a logout does, after which nobody could reach it."""
    assert home.run("add", "--paused", "http://127.0.0.1:1/x").returncode == 0
    [supervisor] = home.supervisors()
    runtime = Path(home.environment["XDG_RUNTIME_DIR"])
    shutil.rmtree(runtime)
    runtime.mkdir(mode=0o700)
    done = home.run("list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)["tasks"]) == 1
    assert home.supervisors() != [supervisor]


def test_a_socket_in_a_folder_that_others_may_enter_now_is_not_the_daemon_s(home: Home) -> None:
    """Whoever has made the folder anew listens there, and would be told passwords."""
    assert home.run("add", "--paused", "http://127.0.0.1:1/x").returncode == 0
    runtime = Path(home.environment["XDG_RUNTIME_DIR"])
    listening = runtime / "autodl" / "autodl.sock"
    shutil.rmtree(runtime)
    listening.parent.mkdir(parents=True)
    listening.parent.chmod(0o777)
    other = home.folder / "other-runtime"
    other.mkdir(mode=0o700)
    home.environment["XDG_RUNTIME_DIR"] = str(other)
    with socket.socket(socket.AF_UNIX) as trap:
        trap.bind(str(listening))
        trap.listen()
        trap.setblocking(False)
        assert home.run("list").returncode == 3
        with pytest.raises(BlockingIOError):
            trap.accept()


def test_its_queue_is_there_again_after_it_was_killed(home: Home) -> None:
    assert home.run("add", "http://127.0.0.1:1/x", ".", "--paused").returncode == 0
    [supervisor] = home.supervisors()
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: home.supervisors() == [], "it is gone")
    tasks = json.loads(home.run("list", "--json").stdout)["tasks"]
    assert [task["state"] for task in tasks] == ["paused"]
    assert home.supervisors() not in ([], [supervisor])


def test_it_ends_by_itself_when_nothing_is_left_to_do(make_daemon: MakeDaemon, nginx: Nginx) -> None:
    daemon = make_daemon("--private", "--idle-exit", "2").start()
    served = nginx.file("private/idle.bin", 800_000, rate="200k")
    with daemon.connect() as wire:
        [task_id] = wire.call("add", urls=[served.slow_url], dir=str(daemon.files))["ids"]
    assert daemon.process is not None
    # Nobody watches it: the download alone keeps it alive.
    assert daemon.process.wait(60) == 0
    assert (daemon.files / "idle.bin").exists()
    assert not daemon.socket.exists()
    daemon.start()
    assert daemon.status(task_id)["state"] == "finished"


def test_a_connected_client_keeps_it_alive(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("--private", "--idle-exit", "0.2").start()
    with daemon.connect() as wire:
        assert daemon.process is not None
        # The opposite can't be awaited as an event: the daemon has several times its time-out here.
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            with pytest.raises(subprocess.TimeoutExpired):
                daemon.process.wait(0.3)
        assert wire.call("max_tasks") == {"max_tasks_num": 10}
    assert daemon.process.wait(60) == 0
