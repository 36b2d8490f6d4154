"""The private daemon as a user's own service, under the user's own systemd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.service_machine import SERVICE, SLOW_BYTES, SOCKET, WEB, ServiceMachine
from support.waiting import wait_until


class UserManager:
    """Alice's systemd."""

    def __init__(self, service: ServiceMachine) -> None:
        self.service = service
        self.runtime_dir = f"/run/user/{service.machine.uid('alice')}"
        self.socket = f"{self.runtime_dir}/autodl/autodl.sock"

    def systemctl(self, *arguments: str) -> str:
        """Run `systemctl --user`, which must succeed."""
        return self.service.machine.ok("systemctl", "--user", *arguments, user="alice", env=self._environment())

    def property(self, name: str) -> str:
        """Return a property of the service."""
        return self.systemctl("show", "--property", name, "--value", SERVICE).strip()

    def autodl(self, *arguments: str) -> str:
        """Run the command line against the private daemon."""
        return self.service.autodl("alice", *arguments, socket=self.socket)

    def _environment(self) -> dict[str, str]:
        return {"XDG_RUNTIME_DIR": self.runtime_dir, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={self.runtime_dir}/bus"}


@pytest.fixture
def manager(service: ServiceMachine) -> Iterator[UserManager]:
    """Alice's systemd, which runs without her being logged in, with autodl enabled."""
    made = UserManager(service)
    machine = service.machine
    machine.ok("loginctl", "enable-linger", "alice")
    wait_until(lambda: machine.run("test", "-S", f"{made.runtime_dir}/bus").returncode == 0, "her bus is there")
    made.systemctl("enable", "--now", SOCKET)
    yield made
    made.systemctl("disable", "--now", SERVICE, SOCKET)
    machine.ok("loginctl", "disable-linger", "alice")
    machine.await_property(f"user@{machine.uid('alice')}.service", "ActiveState", "inactive")


def test_a_user_has_a_download_service_of_their_own(manager: UserManager) -> None:
    service = manager.service
    digest = service.serve("private", 1000)
    assert manager.property("ActiveState") == "inactive"
    manager.autodl("get", f"{WEB}/private")
    assert service.digest("/home/alice/private") == digest
    assert manager.property("ActiveState") == "active"
    assert service.machine.path("home/alice/.local/state/autodl/queue.db").exists()
    mode = service.machine.ok("stat", "--format=%a %U", manager.socket, manager.socket.rpartition("/")[0])
    assert mode.split() == ["600", "alice", "700", "alice"]


def test_a_users_service_restarts_reloads_and_goes_on(manager: UserManager) -> None:
    service = manager.service
    digest = service.serve("private-slow", SLOW_BYTES)
    [task_id] = manager.autodl("add", "--connections", "1", "--limit-rate", "100k", f"{WEB}/private-slow").split()
    part = service.machine.path("home/alice/autodl-storage/.private-slow.autodl-ctl")
    wait_until(part.exists, "it is under way")
    manager.systemctl("reload", SERVICE)
    manager.systemctl("restart", SERVICE)
    manager.autodl("limit", "--id", task_id, "0")
    manager.autodl("wait", task_id)
    assert service.digest("/home/alice/autodl-storage/private-slow") == digest
    assert service.fetches("private-slow", at_least=2)[-1][0] == 206


def test_a_users_lines_are_in_the_journal_with_their_fields(manager: UserManager) -> None:
    machine = manager.service.machine
    before = machine.cursor()
    manager.systemctl("restart", SERVICE)
    entry = machine.await_entry("EVENT=ready", f"_UID={machine.uid('alice')}", after=before)
    assert entry["_SYSTEMD_USER_UNIT"] == SERVICE


def test_other_users_are_not_let_in(manager: UserManager) -> None:
    done = manager.service.machine.run("autodl", "--socket", manager.socket, "list", user="bob")
    assert done.returncode in (3, 5)
