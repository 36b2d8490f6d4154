"""The Debian package: it builds, lintian finds nothing, and it is installed, upgraded, removed, purged."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import QUICK, REPO
from support.debian_package import build, contents, control_file, field, older
from support.machine import machine
from support.service_machine import HTTP_SERVICE, HTTP_SOCKET, SERVICE, SLOW_BYTES, SOCKET, USERS, WEB, ServiceMachine

from autodl_lib import __version__

OLD_VERSION = "0.0.1"
CONFIG = "/etc/autodl/autodl.toml"
MODULES = "/usr/lib/python3/dist-packages"
UNITS = ("/lib/systemd/system", "/usr/lib/systemd/user")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def computer(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceMachine]:
    """A machine without autodl, for tests that follow each other in the order of this file."""
    with machine(tmp_path_factory.mktemp(secrets.token_hex(6), numbered=False)) as made:
        ServiceMachine(made).prepare()
        made.path(CONFIG).unlink()
        made.boot()
        for user in USERS:
            made.ok("useradd", "--create-home", "--shell", "/bin/sh", user)
        for one in (older(package, OLD_VERSION), package):
            shutil.copy(one, made.path(f"root/{one.name}"))
        yield ServiceMachine(made)


def install(computer: ServiceMachine, version: str) -> str:
    return computer.machine.ok("dpkg", "--install", f"/root/autodl_{version}_all.deb")


def state_of(computer: ServiceMachine) -> str:
    return computer.machine.run("dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}", "autodl").stdout


# What is in it.


def test_lintian_has_no_error_or_warning(package: Path) -> None:
    [changes] = package.parent.glob("*.changes")
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error,warning", str(changes)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_its_version_is_the_programs(package: Path) -> None:
    assert field(package, "Version") == __version__


def test_it_needs_nothing_but_debians_own_packages(package: Path) -> None:
    wanted = {re.split(r"[ :(]", one.strip())[0] for one in field(package, "Depends").split(",")}
    assert wanted == {"python3", "python3-click", "python3-psutil", "python3-pycurl", "python3-rich", "systemd"}


@pytest.mark.parametrize(
    "path",
    [
        "/usr/bin/autodl",
        CONFIG,
        *(f"{folder}/{name}" for folder in UNITS for name in (SERVICE, SOCKET)),
        *(f"{UNITS[0]}/{name}" for name in (HTTP_SERVICE, HTTP_SOCKET)),
        "/usr/lib/sysusers.d/autodl.conf",
        "/usr/lib/tmpfiles.d/autodl.conf",
        *(f"/usr/share/man/man{page[-1]}/{page}.gz" for page in ("autodl.1", "autodl.toml.5", "autodl-protocol.7")),
        "/usr/share/man/man8/autodl-daemon.8.gz",
        "/usr/share/bash-completion/completions/autodl",
        "/usr/share/zsh/vendor-completions/_autodl",
        "/usr/share/fish/vendor_completions.d/autodl.fish",
    ],
)
def test_it_has_everything_where_it_belongs(path: str, package: Path) -> None:
    assert path in contents(package)


def test_its_only_configuration_is_the_one_with_every_key_commented(package: Path) -> None:
    assert control_file(package, "conffiles").split() == [CONFIG]


def test_all_of_it_is_roots_and_nothing_is_setuid_or_writable_for_others(package: Path) -> None:
    kinds = set(contents(package).values())
    assert kinds <= {f"{mode} root/root" for mode in ("drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x")}


def test_all_modules_and_statements_of_the_tree_are_in_it(package: Path) -> None:
    there = set(contents(package))
    for file in [*(REPO / "autodl_lib").rglob("*.py"), *(REPO / "autodl_lib").rglob("*.sql")]:
        assert f"{MODULES}/{file.relative_to(REPO)}" in there


# What it does on a machine; from here on in order.


def test_installing_it_enables_and_starts_the_service(computer: ServiceMachine) -> None:
    install(computer, OLD_VERSION)
    machine = computer.machine
    assert machine.ok("systemctl", "is-enabled", SERVICE, SOCKET).split() == ["enabled"] * 2
    assert machine.ok("systemctl", "is-active", SERVICE, SOCKET).split() == ["active"] * 2
    assert machine.run("systemctl", "is-enabled", HTTP_SOCKET).stdout == "disabled\n"
    assert machine.run("systemctl", "is-active", HTTP_SERVICE, HTTP_SOCKET).stdout.split() == ["inactive"] * 2
    assert machine.ok("getent", "passwd", "autodl").endswith("/usr/sbin/nologin\n")
    assert machine.ok("getent", "group", "autodl-admin")
    digest = computer.serve("first", 100_000)
    assert computer.digest(computer.finish("alice", computer.add("alice", f"{WEB}/first"))["dest"]) == digest


def test_the_command_heeds_neither_the_environment_nor_the_home_of_its_user(computer: ServiceMachine) -> None:
    machine = computer.machine
    for name in ("click.py", "sitecustomize.py", "usercustomize.py"):
        machine.write(f"home/bob/evil/{name}", "raise SystemExit('evil')\n")
    env = {"PYTHONPATH": "/home/bob/evil", "PYTHONSTARTUP": "/home/bob/evil/click.py"}
    assert machine.ok("autodl", "--version", user="bob", env=env).startswith("autodl ")


def test_units_that_the_package_has_are_not_installed_a_second_time(computer: ServiceMachine) -> None:
    done = computer.machine.run("autodl", "install-service", "--system")
    assert (done.returncode, done.stdout) == (1, "")
    assert "systemctl enable --now autodl" in done.stderr


def test_an_upgrade_keeps_configuration_socket_and_queue_and_goes_on_where_it_was(computer: ServiceMachine) -> None:
    machine = computer.machine
    machine.write(CONFIG, QUICK + "[history]\nkeep_days = 7\n")
    machine.ok("systemctl", "reload", SERVICE)
    task_id, digest = computer.start_slow("alice", "upgraded")
    waiting = computer.add("bob", "--paused", f"{WEB}/upgraded")
    socket = machine.ok("stat", "--format=%i", "/run/autodl/autodl.sock")
    machine.ok("systemctl", "start", HTTP_SOCKET, HTTP_SERVICE)
    before, http_before = machine.main_pid(SERVICE), machine.main_pid(HTTP_SERVICE)
    install(computer, __version__)
    assert state_of(computer) == f"ii {__version__}"
    assert machine.main_pid(SERVICE) not in (before, 0)
    assert machine.main_pid(HTTP_SERVICE) not in (http_before, 0), "what runs is the new version"
    assert machine.ok("stat", "--format=%i", "/run/autodl/autodl.sock") == socket
    assert machine.path(CONFIG).read_text() == QUICK + "[history]\nkeep_days = 7\n"
    task = computer.finish("alice", task_id)
    assert computer.digest(task["dest"]) == digest
    assert any(status == 206 for status, _ in computer.fetches("upgraded", at_least=2)), "it went on from its part"
    assert computer.status("bob", waiting)["state"] == "paused"


def test_an_upgrade_does_not_start_what_an_administrator_has_disabled(computer: ServiceMachine) -> None:
    machine = computer.machine
    machine.ok("systemctl", "disable", "--now", SERVICE, SOCKET, HTTP_SOCKET)
    machine.ok("systemctl", "stop", HTTP_SERVICE)
    install(computer, __version__)
    units = (SERVICE, SOCKET, HTTP_SERVICE, HTTP_SOCKET)
    assert machine.run("systemctl", "is-active", *units).stdout.split() == ["inactive"] * 4
    assert machine.run("systemctl", "is-enabled", SERVICE, SOCKET).stdout.split() == ["disabled"] * 2
    machine.ok("systemctl", "enable", "--now", SERVICE, SOCKET)


def test_removing_it_stops_the_service_and_keeps_queue_configuration_and_parts(computer: ServiceMachine) -> None:
    machine = computer.machine
    computer.start_slow("alice", "removed")
    machine.ok("systemctl", "start", HTTP_SOCKET, HTTP_SERVICE)
    before = machine.cursor()
    machine.ok("dpkg", "--remove", "autodl")
    assert computer.processes() == []
    units = (SERVICE, SOCKET, HTTP_SERVICE, HTTP_SOCKET)
    assert machine.run("systemctl", "is-active", *units).stdout.split() == ["inactive"] * 4
    assert machine.journal("EVENT=worker_killed", after=before) == []
    assert machine.run("test", "-e", "/run/autodl/autodl.sock").returncode == 1
    assert machine.path("var/lib/autodl/queue.db").exists()
    assert machine.path(CONFIG).exists()
    assert not machine.path(f"{MODULES}/autodl_lib").exists()
    assert machine.path("home/alice/autodl-storage/.removed.autodl-part").exists()


def test_installing_it_again_goes_on_with_the_queue_that_was_left(computer: ServiceMachine) -> None:
    install(computer, __version__)
    [task] = [task for task in computer.json("alice", "list")["tasks"] if task["url"].endswith("/removed")]
    done = computer.finish("alice", task["id"])
    assert computer.digest(done["dest"]) == computer.serve("removed", SLOW_BYTES)
    assert any(status == 206 for status, _ in computer.fetches("removed", at_least=2))


def test_purging_it_removes_queue_and_configuration_and_no_file_of_a_user(computer: ServiceMachine) -> None:
    machine = computer.machine
    machine.ok("dpkg", "--purge", "autodl")
    for gone in ("var/lib/autodl", "etc/autodl", "var/lib/autodl-http"):
        assert not machine.path(gone).exists()
    assert machine.run("test", "-e", "/run/autodl").returncode == 1
    links = machine.ok("find", "/etc/systemd", "/lib/systemd", "/usr/lib/systemd", "-name", "autodl*")
    assert links == ""
    assert machine.ok("systemctl", "--failed", "--quiet") == "", machine.recent()
    kept = {path.name for path in machine.path("home/alice/autodl-storage").iterdir()}
    assert {"first", "upgraded", "removed"} <= kept
