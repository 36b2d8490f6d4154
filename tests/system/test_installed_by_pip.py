"""`autodl install-service` under a real systemd, for a program that no package installed."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import REPO
from support.machine import machine
from support.service_machine import SERVICE, SOCKET, USERS, WEB, ServiceMachine
from support.waiting import wait_until

PROGRAM = "/opt/autodl/bin/autodl"
_START = """#!/usr/bin/python3
import sys

sys.path.insert(0, "/opt/autodl/lib")
from autodl import main

if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.fixture(scope="module")
def computer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceMachine]:
    """A machine with the program in /opt/autodl, as pip builds it, for tests in the order of this file."""
    built = _build(tmp_path_factory.mktemp("build"))
    with machine(tmp_path_factory.mktemp(secrets.token_hex(6), numbered=False)) as made:
        ServiceMachine(made).prepare()
        shutil.rmtree(made.path("etc/autodl"))
        shutil.copytree(built, made.path("opt/autodl/lib"))
        made.write(PROGRAM, _START, 0o755)
        made.path("usr/bin/autodl").symlink_to(PROGRAM)
        made.boot()
        for user in USERS:
            made.ok("useradd", "--create-home", "--shell", "/bin/sh", user)
        yield ServiceMachine(made)


def _build(folder: Path) -> Path:
    """Build the package's files with setup.py, from a copy: it leaves things in its folder."""
    tree = folder / "tree"
    ignore = shutil.ignore_patterns("__pycache__", "tests", ".*", "build", "*.egg-info")
    shutil.copytree(REPO, tree, ignore=ignore, symlinks=True)
    command = ["/usr/bin/python3", "setup.py", "--quiet", "build", "--build-base", str(folder / "build")]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    return folder / "build" / "lib"


def test_a_user_can_not_install_the_machines_service(computer: ServiceMachine) -> None:
    assert computer.machine.run("autodl", "install-service", "--system", user="alice").returncode == 5


def test_a_program_of_a_users_does_not_become_roots_service(computer: ServiceMachine) -> None:
    machine = computer.machine
    machine.ok("cp", "-r", "/opt/autodl", "/home/alice/autodl")
    machine.ok("chown", "-R", "alice:", "/home/alice/autodl")
    done = machine.run("/home/alice/autodl/bin/autodl", "install-service", "--system")
    assert (done.returncode, done.stdout) == (5, "")
    assert "others than root can change" in done.stderr
    assert machine.run("systemctl", "cat", SERVICE).returncode != 0


def test_the_machines_service_is_installed_and_only_then_started(computer: ServiceMachine) -> None:
    machine = computer.machine
    said = machine.ok("autodl", "install-service")
    assert "ran systemctl daemon-reload" in said
    assert said.endswith("start it with `systemctl enable --now autodl`\n")
    assert machine.run("systemctl", "is-active", SERVICE, SOCKET).stdout.split() == ["inactive"] * 2
    assert machine.ok("getent", "passwd", "autodl")
    machine.ok("systemctl", "enable", "--now", "autodl")
    assert machine.ok("systemctl", "is-active", SERVICE, SOCKET).split() == ["active"] * 2
    digest = computer.serve("served", 100_000)
    assert computer.digest(computer.finish("alice", computer.add("alice", f"{WEB}/served"))["dest"]) == digest


def test_installing_it_again_interrupts_nothing(computer: ServiceMachine) -> None:
    pid = computer.machine.main_pid(SERVICE)
    computer.machine.ok("autodl", "install-service")
    assert computer.machine.main_pid(SERVICE) == pid


def test_uninstalling_it_stops_it_and_leaves_the_queue(computer: ServiceMachine) -> None:
    machine = computer.machine
    said = machine.ok("autodl", "install-service", "--uninstall")
    assert "removed /etc/autodl/autodl.toml" in said
    assert computer.processes() == []
    assert machine.ok("find", "/etc", "-name", "autodl*") == ""
    assert machine.run("systemctl", "cat", SERVICE).returncode != 0
    assert machine.ok("systemctl", "--failed", "--quiet") == "", machine.recent()
    assert machine.path("var/lib/autodl/queue.db").exists()


def test_a_user_installs_a_service_of_their_own_and_takes_it_away_again(computer: ServiceMachine) -> None:
    machine = computer.machine
    runtime_dir = f"/run/user/{machine.uid('bob')}"
    env = {"XDG_RUNTIME_DIR": runtime_dir, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime_dir}/bus"}
    machine.ok("loginctl", "enable-linger", "bob")
    wait_until(lambda: machine.run("test", "-S", f"{runtime_dir}/bus").returncode == 0, "his bus is there")
    said = machine.ok("autodl", "install-service", user="bob", env=env)
    assert "ran systemctl --user daemon-reload" in said
    machine.ok("systemctl", "--user", "enable", "--now", "autodl.socket", user="bob", env=env)
    digest = computer.serve("private", 1000)
    machine.ok("autodl", "get", f"{WEB}/private", user="bob", env=env)
    assert computer.digest("/home/bob/private") == digest
    assert machine.ok("systemctl", "--user", "is-active", SERVICE, user="bob", env=env) == "active\n"
    machine.ok("autodl", "install-service", "--uninstall", user="bob", env=env)
    assert machine.ok("find", "/home/bob/.config", "-name", "autodl*") == ""
    assert machine.run("systemctl", "--user", "is-active", SERVICE, user="bob", env=env).stdout == "inactive\n"
