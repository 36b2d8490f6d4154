"""The HTTP front as a service of the machine: off until it is wanted, and confined."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from support.service_machine import HTTP_SERVICE, HTTP_SOCKET, SERVICE, SOCKET, WEB, ServiceMachine

HOME = "/var/lib/autodl-http"
_MOST_EXPOSED = 1.0


class Front:
    """The service, asked with curl."""

    def __init__(self, service: ServiceMachine) -> None:
        self.service = service
        self.machine = service.machine

    def curl(self, path: str, *arguments: str) -> Any:
        """Ask as root does, who may read the token; return the decoded answer."""
        script = 'curl -sS -H @<(echo "Authorization: Bearer $(cat /var/lib/autodl-http/token)") "$@"'
        url = f"http://127.0.0.1:6736{path}"
        return json.loads(self.machine.ok("bash", "-c", script, "-", *arguments, url))

    def rpc(self, method: str, **params: Any) -> Any:
        """Ask by JSON-RPC."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        return self.curl("/rpc", "-H", "Content-Type: application/json", "--data-binary", body)


@pytest.fixture
def front(service: ServiceMachine) -> Iterator[Front]:
    service.machine.ok("systemctl", "enable", "--now", HTTP_SOCKET)
    # The first one who comes starts the service, which makes the token.
    said = service.machine.ok("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:6736/stats")
    assert said == "401"
    yield Front(service)
    service.machine.ok("systemctl", "disable", "--now", HTTP_SOCKET)
    service.machine.ok("systemctl", "stop", HTTP_SERVICE)


def test_it_is_off_until_somebody_wants_it(service: ServiceMachine) -> None:
    assert service.machine.run("systemctl", "is-enabled", HTTP_SOCKET).stdout == "disabled\n"
    assert service.machine.run("systemctl", "is-active", HTTP_SERVICE, HTTP_SOCKET).stdout.split() == ["inactive"] * 2


def test_systemd_has_nothing_to_say_against_its_units(service: ServiceMachine) -> None:
    units = [f"/usr/lib/systemd/system/{unit}" for unit in (HTTP_SERVICE, HTTP_SOCKET)]
    done = service.machine.run("systemd-analyze", "verify", "--man=no", *units)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_is_hardly_exposed_by_systemds_own_measure(service: ServiceMachine) -> None:
    said = service.machine.ok("systemd-analyze", "security", "--no-pager", HTTP_SERVICE)
    found = re.search(r"Overall exposure level for autodl-http\.service: ([0-9.]+)", said)
    assert found, said
    assert float(found[1]) <= _MOST_EXPOSED


def test_what_comes_by_http_is_downloaded_as_its_own_account(front: Front) -> None:
    service, machine = front.service, front.machine
    digest = service.serve("by-http", 300_000)
    assert machine.ok("stat", "--format=%a %U", f"{HOME}/token") == "600 autodl-http\n"
    [task_id] = front.rpc("add", urls=[f"{WEB}/by-http"])["result"]["ids"]
    machine.ok("autodl", "wait", str(task_id))
    task = front.curl(f"/tasks/{task_id}")
    assert (task["state"], task["owner"]) == ("finished", "autodl-http")
    assert task["dest"] == f"{HOME}/autodl-storage/by-http"
    assert service.digest(task["dest"]) == digest
    assert machine.ok("stat", "--format=%a %U", task["dest"]) == "644 autodl-http\n"
    assert front.rpc("add", urls=[f"{WEB}/by-http"], dir="/tmp")["error"]["data"]["code"] == "not_allowed"


def test_it_has_no_rights_and_no_network(front: Front) -> None:
    machine = front.machine
    pid = machine.main_pid(HTTP_SERVICE)
    lines = machine.ok("cat", f"/proc/{pid}/status").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert set(status["Uid"].split()) == {str(machine.uid("autodl-http"))}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert machine.ok("readlink", f"/proc/{pid}/ns/net") != machine.ok("readlink", "/proc/1/ns/net")
    words = machine.ok("cat", f"/proc/{pid}/cmdline", f"/proc/{pid}/environ")
    assert machine.ok("cat", f"{HOME}/token").strip() not in words


def test_it_answers_503_while_the_daemon_is_away(front: Front) -> None:
    machine = front.machine
    assert "tasks" in front.curl("/stats")
    pid = machine.main_pid(HTTP_SERVICE)
    machine.ok("systemctl", "stop", SOCKET, SERVICE)
    assert front.curl("/stats")["error"]["code"] == "no_daemon"
    machine.ok("systemctl", "start", SOCKET, SERVICE)
    assert "tasks" in front.curl("/stats")
    assert machine.main_pid(HTTP_SERVICE) == pid
