"""The machine's service under a real systemd, when something breaks: what is queued is downloaded all the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from support.service_machine import SERVICE, USERS, WEB, ServiceMachine
from support.waiting import wait_until

_DROP_IN = f"etc/systemd/system/{SERVICE}.d/watched-closely.conf"
_IN_LOOP = "autodl_lib/supervisor/main.py"


def test_a_daemon_that_is_killed_is_started_again_and_goes_on(service: ServiceMachine) -> None:
    machine = service.machine
    task_id, digest = service.start_slow("alice", "killed")
    pid, before = machine.main_pid(SERVICE), machine.cursor()
    machine.ok("kill", "-KILL", str(pid))
    machine.await_entry("EVENT=ready", after=before)
    machine.await_property(SERVICE, "ActiveState", "active")
    assert machine.main_pid(SERVICE) not in (0, pid)
    assert service.digest(service.finish("alice", task_id)["dest"]) == digest
    assert service.fetches("killed", at_least=2)[-1][0] == 206


def test_a_worker_that_is_killed_takes_nothing_with_it(service: ServiceMachine) -> None:
    machine = service.machine
    task_id, digest = service.start_slow("bob", "worker-killed")
    pid, before = machine.main_pid(SERVICE), machine.cursor()
    machine.ok("kill", "-KILL", *map(str, service.worker_pids()))
    entry = machine.await_entry("EVENT=worker_lost", after=before)
    assert (entry["AUTODL_USER"], entry["PRIORITY"]) == ("bob", "4")
    assert service.digest(service.finish("bob", task_id)["dest"]) == digest
    assert machine.main_pid(SERVICE) == pid


def test_a_daemon_that_hangs_is_ended_by_the_watchdog_says_where_it_hung_and_goes_on(service: ServiceMachine) -> None:
    with _watched_closely(service):
        task_id, digest = service.start_slow("alice", "hung")
        # Of a process that was stopped, any thread may take the signal that ends it, and one that does so while the
        # main thread goes on can't always tell where that is. A loop that hangs by itself takes the signal itself.
        said = next((said for said in map(_hang, [service] * 4) if any(_IN_LOOP in line for line in said)), None)
        assert said is not None, "it does not say where it hung"
        assert service.digest(service.finish("alice", task_id)["dest"]) == digest


def _hang(service: ServiceMachine) -> list[str]:
    """Stop the daemon until the watchdog ends it; return what it said then."""
    machine = service.machine
    pid, before = machine.main_pid(SERVICE), machine.cursor()
    machine.ok("kill", "-STOP", str(pid))
    machine.await_entry("EVENT=ready", after=before)
    lines = [str(entry["MESSAGE"]) for entry in machine.journal(f"UNIT={SERVICE}", after=before)]
    assert any("Watchdog timeout" in line for line in lines), lines
    said = [str(entry["MESSAGE"]) for entry in machine.journal(f"_PID={pid}", after=before)]
    assert any("Fatal Python error: Aborted" in line for line in said), said
    return said


def test_a_daemon_with_little_to_do_is_left_alone_by_the_watchdog(service: ServiceMachine) -> None:
    machine = service.machine

    def fed_at_usec() -> int:
        return int(machine.property(SERVICE, "WatchdogTimestampMonotonic"))

    with _watched_closely(service):
        pid, began_usec = machine.main_pid(SERVICE), fed_at_usec()
        wait_until(lambda: fed_at_usec() > began_usec + 7_000_000, "the watchdog is fed", seen=machine.recent)
        assert machine.main_pid(SERVICE) == pid


def test_after_a_crash_of_the_machine_all_downloads_go_on_at_boot(service: ServiceMachine) -> None:
    machine = service.machine
    tasks = {user: service.start_slow(user, f"crashed-{user}") for user in USERS}
    later = service.serve("later", 1000)
    waiting = service.add("bob", "--paused", f"{WEB}/later")
    machine.crash()
    machine.boot()
    assert machine.ok("systemctl", "is-active", SERVICE).strip() == "active"
    for user, (task_id, digest) in tasks.items():
        assert service.digest(service.finish(user, task_id)["dest"]) == digest
        assert service.fetches(f"crashed-{user}")[-1][0] == 206
    assert service.status("bob", waiting)["state"] == "paused"
    service.autodl("bob", "resume", "--id", str(waiting))
    assert service.digest(service.finish("bob", waiting)["dest"]) == later


@contextlib.contextmanager
def _watched_closely(service: ServiceMachine) -> Iterator[None]:
    """Give the service a watchdog that does not wait for half a minute."""
    machine = service.machine
    machine.write(_DROP_IN, "[Service]\nWatchdogSec=6\n")
    machine.ok("systemctl", "daemon-reload")
    machine.ok("systemctl", "restart", SERVICE)
    try:
        yield
    finally:
        machine.path(_DROP_IN).unlink()
        machine.ok("systemctl", "daemon-reload")
        machine.ok("systemctl", "restart", SERVICE)
