"""The machine's service under a real systemd: it starts, serves all users, reloads, stops."""

from __future__ import annotations

import pytest
from support.daemon import QUICK
from support.service_machine import SERVICE, SOCKET, USERS, WEB, ServiceMachine
from support.waiting import wait_until


def test_it_is_enabled_and_runs_once_it_is_installed(service: ServiceMachine) -> None:
    assert service.machine.ok("systemctl", "is-enabled", SERVICE, SOCKET).split() == ["enabled", "enabled"]
    assert service.machine.ok("systemctl", "is-active", SERVICE, SOCKET).split() == ["active", "active"]
    assert service.machine.ok("systemctl", "--failed", "--quiet") == ""


def test_a_client_that_connects_to_the_socket_starts_it(service: ServiceMachine) -> None:
    machine = service.machine
    machine.ok("systemctl", "stop", SERVICE)
    assert machine.property(SERVICE, "ActiveState") == "inactive"
    assert service.json("alice", "list") == {"tasks": []}
    machine.await_property(SERVICE, "ActiveState", "active")


def test_it_makes_its_socket_itself_where_the_socket_unit_is_masked(service: ServiceMachine) -> None:
    machine = service.machine
    machine.ok("systemctl", "stop", SERVICE, SOCKET)
    machine.ok("systemctl", "mask", "--runtime", SOCKET)
    try:
        machine.ok("systemctl", "start", SERVICE)
        assert service.json("alice", "list") == {"tasks": []}
        machine.ok("systemctl", "stop", SERVICE)
        assert machine.run("test", "-e", "/run/autodl/autodl.sock").returncode != 0
    finally:
        machine.ok("systemctl", "unmask", "--runtime", SOCKET)


def test_the_socket_outlives_the_service(service: ServiceMachine) -> None:
    machine = service.machine
    before = machine.ok("stat", "--format=%i %a %U", "/run/autodl/autodl.sock")
    machine.ok("systemctl", "restart", SERVICE)
    machine.ok("systemctl", "stop", SERVICE)
    assert machine.ok("stat", "--format=%i %a %U", "/run/autodl/autodl.sock") == before
    assert before.split()[1:] == ["666", "root"]


def test_a_socket_unit_that_is_stopped_leaves_no_socket_behind(service: ServiceMachine) -> None:
    machine = service.machine
    machine.ok("systemctl", "stop", SERVICE, SOCKET)
    assert machine.run("test", "-e", "/run/autodl/autodl.sock").returncode != 0
    machine.ok("systemctl", "start", SOCKET, SERVICE)
    assert service.json("alice", "list") == {"tasks": []}


def test_two_users_download_at_once_and_each_file_is_its_users(service: ServiceMachine) -> None:
    digests = {user: service.serve(f"for-{user}", 300_000) for user in USERS}
    tasks = {user: service.add(user, f"{WEB}/for-{user}") for user in USERS}
    for user, task_id in tasks.items():
        task = service.finish(user, task_id)
        assert task["dest"] == f"/home/{user}/autodl-storage/for-{user}"
        assert service.digest(task["dest"]) == digests[user]
        assert service.machine.ok("stat", "--format=%U %G %a", task["dest"]).split() == [user, user, "644"]


@pytest.mark.parametrize("folder", ["/tmp/theirs", "/var/tmp/theirs", "/srv/theirs", "/opt/theirs", "/mnt/theirs"])
def test_users_save_wherever_they_may_write(service: ServiceMachine, folder: str) -> None:
    digest = service.serve("anywhere", 1000)
    service.machine.ok("install", "-d", "-o", "alice", "-g", "alice", folder)
    task = service.finish("alice", service.add("alice", f"{WEB}/anywhere", folder))
    assert service.digest(task["dest"]) == digest
    assert task["dest"].startswith(folder)


def test_what_is_mounted_while_it_runs_is_there_for_downloads_and_can_be_unmounted(service: ServiceMachine) -> None:
    machine = service.machine
    digest = service.serve("onto-a-stick", 1000)
    machine.ok("mkdir", "-p", "/media/stick")
    machine.ok("mount", "-t", "tmpfs", "-o", f"uid={machine.uid('alice')}", "stick", "/media/stick")
    try:
        task = service.finish("alice", service.add("alice", f"{WEB}/onto-a-stick", "/media/stick"))
        assert service.digest(task["dest"]) == digest
        machine.ok("systemctl", "restart", SERVICE)  # a worker has its last folder open, and waits for the next task
    finally:
        machine.ok("umount", "/media/stick")
    assert machine.ok("ls", "/media/stick") == ""


def test_root_downloads_to_where_administrators_keep_things(service: ServiceMachine) -> None:
    digest = service.serve("source.tar", 1000)
    task = service.finish(None, service.add(None, f"{WEB}/source.tar", "/usr/local/src"))
    assert service.digest("/usr/local/src/source.tar") == digest
    assert service.machine.ok("stat", "--format=%U %a", task["dest"]).split() == ["root", "644"]


def test_a_restart_goes_on_where_the_download_was(service: ServiceMachine) -> None:
    task_id, digest = service.start_slow("alice", "restarted")
    service.machine.ok("systemctl", "restart", SERVICE)
    task = service.finish("alice", task_id)
    assert service.digest(task["dest"]) == digest
    assert _is_resumed(service, "restarted")


def test_a_stop_saves_what_is_on_its_way_and_leaves_no_process(service: ServiceMachine) -> None:
    machine = service.machine
    task_id, digest = service.start_slow("bob", "stopped")
    before = machine.cursor()
    machine.ok("systemctl", "stop", SERVICE)
    assert service.processes() == []
    said = [entry["MESSAGE"] for entry in machine.journal(f"UNIT={SERVICE}", after=before)]
    assert not any("SIGKILL" in line for line in said), said
    assert machine.property(SERVICE, "Result") == "success"
    assert machine.journal("EVENT=worker_killed", after=before) == []
    assert machine.path("home/bob/autodl-storage/.stopped.autodl-part").exists()
    assert machine.path("home/bob/autodl-storage/.stopped.autodl-ctl").exists()
    task = service.finish("bob", task_id)  # who asks starts it again
    assert service.digest(task["dest"]) == digest
    assert _is_resumed(service, "stopped")


def test_a_reload_obeys_the_new_configuration_and_interrupts_nothing(service: ServiceMachine) -> None:
    machine = service.machine
    task_id, digest = service.start_slow("alice", "reloaded")
    bob = machine.uid("bob")  # a worker of his may be there still, and leave at any time

    def processes() -> list[tuple[int, int]]:
        return sorted(one for one in service.processes() if one[1] != bob)

    processes_before = processes()
    before = machine.cursor()
    machine.write("etc/autodl/autodl.toml", "max_tasks_num = 3\n" + QUICK)
    try:
        machine.ok("systemctl", "reload", SERVICE)
        machine.await_entry("EVENT=reloaded", after=before)
        assert service.json(None, "max-tasks")["max_tasks_num"] == 3
        assert processes() == processes_before
        assert service.digest(service.finish("alice", task_id)["dest"]) == digest
        assert service.fetches("reloaded") == [(200, "-")]
    finally:
        machine.write("etc/autodl/autodl.toml", QUICK)
        machine.ok("systemctl", "reload", SERVICE)


def test_a_reload_of_a_wrong_configuration_is_said_so_and_changes_nothing(service: ServiceMachine) -> None:
    machine = service.machine
    before, pid = machine.cursor(), machine.main_pid(SERVICE)
    machine.write("etc/autodl/autodl.toml", "max_task_num = 3\n" + QUICK)
    try:
        machine.ok("systemctl", "reload", SERVICE)
        entry = machine.await_entry("EVENT=reload_failed", after=before)
        assert "max_tasks_num" in entry["MESSAGE"]
        assert entry["PRIORITY"] == "3"
        machine.await_property(SERVICE, "ActiveState", "active")
        assert machine.main_pid(SERVICE) == pid
    finally:
        machine.write("etc/autodl/autodl.toml", QUICK)
        machine.ok("systemctl", "reload", SERVICE)


def test_a_start_with_a_wrong_configuration_says_why_and_is_not_tried_again(service: ServiceMachine) -> None:
    machine = service.machine
    machine.ok("systemctl", "stop", SERVICE)
    before = machine.cursor()
    machine.write("etc/autodl/autodl.toml", "max_task_num = 3\n" + QUICK)
    try:
        assert machine.run("systemctl", "start", SERVICE).returncode != 0
        assert "max_tasks_num" in machine.await_entry("EVENT=start_failed", after=before)["MESSAGE"]
        assert machine.property(SERVICE, "ActiveState") == "failed"
    finally:
        machine.write("etc/autodl/autodl.toml", QUICK)


def test_systemctl_status_tells_how_much_runs_and_waits(service: ServiceMachine) -> None:
    machine = service.machine
    service.machine.ok("systemctl", "restart", SERVICE)
    wait_until(lambda: machine.property(SERVICE, "StatusText") == "0 running, 0 queued", "nothing is to be done")
    task_id, _ = service.start_slow("bob", "counted")
    wait_until(lambda: machine.property(SERVICE, "StatusText") == "1 running, 0 queued", "one runs")
    service.autodl("bob", "cancel", str(task_id))
    wait_until(lambda: machine.property(SERVICE, "StatusText") == "0 running, 0 queued", "nothing runs")


def _is_resumed(service: ServiceMachine, name: str) -> bool:
    """Return whether the last request was for the rest of the file alone."""
    status, asked = service.fetches(name, at_least=2)[-1]
    return status == 206 and asked.startswith("bytes=") and not asked.startswith("bytes=0-")
