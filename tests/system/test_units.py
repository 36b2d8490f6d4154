"""The units: what systemd itself says of them, and that what they forbid is forbidden."""

from __future__ import annotations

import re

import pytest
from support.service_machine import SERVICE, SOCKET, WEB, ServiceMachine

_MOST_EXPOSED = 4.0


@pytest.mark.parametrize("folder", ["/usr/lib/systemd/system", "/usr/lib/systemd/user"])
def test_systemd_has_nothing_to_say_against_the_units(service: ServiceMachine, folder: str) -> None:
    scope = "--user" if folder.endswith("user") else "--system"
    units = [f"{folder}/{unit}" for unit in (SERVICE, SOCKET)]
    command = ["systemd-analyze", "verify", "--man=no", scope, *units]
    done = service.machine.run(*command, env={"XDG_RUNTIME_DIR": "/run"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_service_is_little_exposed_by_systemds_own_measure(service: ServiceMachine) -> None:
    said = service.machine.ok("systemd-analyze", "security", "--no-pager", SERVICE)
    found = re.search(r"Overall exposure level for autodl\.service: ([0-9.]+)", said)
    assert found, said
    assert float(found[1]) <= _MOST_EXPOSED


def test_each_process_is_confined_and_a_worker_has_no_rights_of_roots(service: ServiceMachine) -> None:
    service.start_slow("alice", "confined")
    uids_seen = set()
    for pid, uid in service.processes():
        lines = service.machine.run("cat", f"/proc/{pid}/status").stdout.splitlines()
        if not lines:  # an idle worker that has left meanwhile
            continue
        uids_seen.add(uid)
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        # Source: capabilities(7): KILL is 5, SETGID 6, SETUID 7, SETPCAP 8.
        assert int(status["CapBnd"], 16) & ~0b1_1110_0000 == 0
        assert uid == 0 or int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert {0, service.machine.uid("autodl"), service.machine.uid("alice")} <= uids_seen


def test_workers_are_confined_by_landlock_under_the_units_filter(service: ServiceMachine) -> None:
    machine = service.machine
    before = machine.cursor()
    machine.ok("systemctl", "restart", SERVICE)
    assert "confined by Landlock" in machine.await_entry("EVENT=confinement", after=before)["MESSAGE"]


def test_the_report_queue_runs_as_an_account_of_its_own(service: ServiceMachine) -> None:
    own = service.machine.uid("autodl")
    assert 0 < own < 1000
    assert own in [uid for _, uid in service.processes()]


def test_no_process_but_the_daemon_can_speak_to_systemd_for_it(service: ServiceMachine) -> None:
    service.start_slow("bob", "silent")
    machine = service.machine
    daemon = machine.main_pid(SERVICE)
    uids_seen = set()
    for pid, uid in service.processes():
        shown = machine.run("cat", f"/proc/{pid}/environ")
        if pid != daemon and shown.returncode == 0:  # an idle worker may have left meanwhile
            uids_seen.add(uid)
            assert not re.search("NOTIFY_SOCKET|LISTEN_|WATCHDOG_", shown.stdout), shown.stdout
    assert {0, machine.uid("bob")} <= uids_seen


def test_the_journal_is_filtered_by_event_task_and_user(service: ServiceMachine) -> None:
    machine = service.machine
    before = machine.cursor()
    tasks = {user: service.add(user, f"{WEB}/nowhere-{user}") for user in ("alice", "bob")}
    for user, task_id in tasks.items():
        machine.run("autodl", "wait", str(task_id), user=user)
    for user, task_id in tasks.items():
        machine.await_entry("EVENT=task_failed", f"TASK_ID={task_id}", after=before)
        [entry] = machine.filtered("EVENT=task_failed", f"AUTODL_USER={user}", f"TASK_ID={task_id}")
        assert entry["TASK_ID"] == str(task_id)
        assert entry["AUTODL_UID"] == str(machine.uid(user))
        assert entry["PRIORITY"] == "6"
        assert entry["SYSLOG_IDENTIFIER"] == "autodl"
        assert entry["_SYSTEMD_UNIT"] == SERVICE
        assert "404" in entry["MESSAGE"]
