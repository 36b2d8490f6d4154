"""A machine with autodl installed as its service, two users, and an nginx with files to download."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

from support.daemon import QUICK, REPO, SETTLED
from support.machine import Machine
from support.waiting import wait_for_many, wait_until

SERVICE = "autodl.service"
SOCKET = "autodl.socket"
HTTP_SERVICE = "autodl-http.service"
HTTP_SOCKET = "autodl-http.socket"
"""Installed, and off."""
USERS = ("alice", "bob")
WEB = "http://127.0.0.1:8080"
SLOW_BYTES = 12_000_000
"""The size of what `start_slow` fetches."""

_PROGRAM = "usr/lib/python3/dist-packages"
_START = "#!/usr/bin/python3\nimport sys\n\nfrom autodl import main\n\nsys.exit(main())\n"
_NGINX = r"""
log_format plain '$request_uri|$status|$body_bytes_sent|$http_range';
server {
    listen 127.0.0.1:8080;
    root /srv/www;
    access_log /var/log/nginx/files.log plain;
    location / { }
    location ~ ^/rate/(?<rate>[0-9]+k)/(?<name>.+)$ { limit_rate $rate; alias /srv/www/$name; }
}
"""

Task = dict[str, Any]


class ServiceMachine:
    """What tests of the service do on a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    # --- preparing it ---

    def prepare(self) -> None:
        """Put on its disk what is there before autodl is; call before the first boot."""
        machine = self.machine
        machine.write("etc/nginx/conf.d/files.conf", _NGINX)
        machine.write("etc/systemd/system/nginx.service.d/loopback.conf", "[Unit]\nAfter=network.target\n")
        # The machine's life is short: what the journal has not written is lost with it, and tests look for it.
        machine.write("etc/systemd/journald.conf.d/keep.conf", "[Journal]\nStorage=persistent\nRateLimitBurst=0\n")
        machine.write("etc/autodl/autodl.toml", QUICK)

    def install(self) -> None:
        """Install and enable autodl as an administrator does: the package where one was built, else its files."""
        package = _package()
        if package is not None:
            shutil.copy(package, self.machine.path("root") / package.name)
            self.machine.ok("dpkg", "--install", "--force-confold", f"/root/{package.name}")
        else:
            self._copy_files()
            self.machine.ok("systemd-sysusers")
            self.machine.ok("systemd-tmpfiles", "--create", "autodl.conf")
            self.machine.ok("systemctl", "daemon-reload")
            self.machine.ok("systemctl", "enable", "--now", SERVICE)
        for user in USERS:
            self.machine.ok("useradd", "--create-home", "--shell", "/bin/sh", user)

    def _copy_files(self) -> None:
        root = self.machine.root
        program = root / _PROGRAM
        shutil.copy(REPO / "autodl.py", program / "autodl.py")
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPO / "autodl_lib", program / "autodl_lib", ignore=ignore, dirs_exist_ok=True)
        self.machine.write("usr/bin/autodl", _START, 0o755)
        units = REPO / "systemd"
        for source, target in (
            *(
                (units / name, f"usr/lib/systemd/system/{name}")
                for name in (SERVICE, SOCKET, HTTP_SERVICE, HTTP_SOCKET)
            ),
            *((units / "user" / name, f"usr/lib/systemd/user/{name}") for name in (SERVICE, SOCKET)),
            (units / "sysusers.d-autodl.conf", "usr/lib/sysusers.d/autodl.conf"),
            (units / "tmpfiles.d-autodl.conf", "usr/lib/tmpfiles.d/autodl.conf"),
        ):
            self.machine.write(target, source.read_text())

    # --- files to download ---

    def serve(self, name: str, size_bytes: int) -> str:
        """Have nginx serve a file whose bytes follow from its name; return their digest."""
        data = random.Random(name).randbytes(size_bytes)
        path = self.machine.path(f"srv/www/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    def fetches(self, name: str, *, at_least: int = 1) -> list[tuple[int, str]]:
        """Return status and asked range (`-` for all) of what has been asked of a file, once so much has ended.

        A request is logged after its last byte has been sent, so a client may be done before.
        """
        return wait_for_many(lambda: self._logged(name), at_least, f"requests for {name} in the log")

    def _logged(self, name: str) -> list[tuple[int, str]]:
        log = self.machine.path("var/log/nginx/files.log")
        found = []
        for line in log.read_text().splitlines() if log.exists() else []:
            uri, status, _, asked = line.split("|")
            if uri.endswith("/" + name):
                found.append((int(status), asked))
        return found

    def digest(self, path: str) -> str:
        """Return the digest of a file of the machine."""
        return self.machine.ok("sha256sum", path).split()[0]

    # --- clients ---

    def autodl(self, user: str | None, *arguments: str, socket: str | None = None) -> str:
        """Run the command line, which must succeed; return its output."""
        env = {"AUTODL_SOCKET": socket} if socket else {}
        return self.machine.ok("autodl", *arguments, user=user, env=env)

    def json(self, user: str | None, *arguments: str) -> Any:
        """Run the command line with --json and return its document."""
        return json.loads(self.autodl(user, *arguments, "--json"))

    def add(self, user: str | None, *arguments: str) -> int:
        """Queue one URL."""
        [task_id] = self.json(user, "add", *arguments)["ids"]
        return int(task_id)

    def status(self, user: str | None, task_id: int) -> Task:
        """Return a task."""
        task = self.json(user, "status", str(task_id))
        assert isinstance(task, dict)
        return task

    def finish(self, user: str | None, task_id: int) -> Task:
        """Let a task go as fast as it can, and wait for it; it must finish. Return it."""
        self.machine.run("autodl", "limit", "--id", str(task_id), "0", user=user)
        self.machine.run("autodl", "wait", str(task_id), user=user)
        task = self.status(user, task_id)
        assert task["state"] == "finished", (task, self.machine.recent())
        return task

    def start_slow(self, user: str, name: str) -> tuple[int, str]:
        """Queue a file that takes two minutes, but for `finish`, and wait until a part of it is on disk for good.

        Returns the task's number and the digest that the file must have.
        """
        digest = self.serve(name, SLOW_BYTES)
        task_id = self.add(user, "--connections", "1", "--limit-rate", "100k", f"{WEB}/{name}")

        def is_under_way() -> bool:
            task = self.status(user, task_id)
            assert task["state"] not in SETTLED, task
            control = self.machine.path(f"home/{user}/autodl-storage/.{name}.autodl-ctl")
            return task["state"] == "downloading" and task["bytes_done"] > 0 and control.exists()

        wait_until(is_under_way, f"{name} is under way", seen=lambda: self.status(user, task_id))
        return task_id, digest

    def worker_pids(self) -> list[int]:
        """Return the numbers, as they are inside, of the service's processes that are not root's."""
        return [pid for pid, uid in self.processes() if 1000 <= uid < 60000]

    def processes(self) -> list[tuple[int, int]]:
        """Return number and uid of each process of the service."""
        lines = self.machine.ok("ps", "-e", "-ww", "-o", "pid=,uid=,cgroup=").splitlines()
        found = [re.match(r"\s*(\d+)\s+(\d+)\s+.*/autodl\.service", line) for line in lines]
        return [(int(match[1]), int(match[2])) for match in found if match]


def _package() -> Path | None:
    """Return the Debian package to install: $AUTODL_TEST_DEB, or one beside the tree that is newer than the tree."""
    if os.environ.get("AUTODL_TEST_DEB"):
        return Path(os.environ["AUTODL_TEST_DEB"])
    packages = sorted(REPO.parent.glob("autodl_*_all.deb"), key=lambda path: path.stat().st_mtime)
    if not packages:
        return None
    sources = [REPO / "autodl.py", *(REPO / "autodl_lib").rglob("*.py"), *(REPO / "systemd").rglob("*")]
    newest = max(path.stat().st_mtime for path in sources)
    return packages[-1] if packages[-1].stat().st_mtime > newest else None
