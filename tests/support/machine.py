"""A machine of its own with a booted systemd: Debian 12 in a container without a network, thrown away afterwards.

The base tree is made once by debootstrap and kept in $AUTODL_TEST_CACHE; a machine is a layer over it in memory, so
it starts within seconds and starts as clean each time. Needs root, systemd-container and debootstrap.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from support.waiting import PATIENCE_S, wait_until

CACHE = Path(os.environ.get("AUTODL_TEST_CACHE", "/var/cache/autodl-tests"))
MIRROR = os.environ.get("AUTODL_TEST_MIRROR", "http://deb.debian.org/debian")
SUITE = "bookworm"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "procps", "curl", "nginx-light"),
    *("python3", "python3-pycurl", "python3-click", "python3-psutil", "python3-rich", "python3-h11"),
)

_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
_BOOT_TIMEOUT_S = 120.0

Entry = dict[str, Any]
"""A line of the journal: its fields."""


def base_tree() -> Path:
    """Return the tree that machines are layers over; made on first use, which takes a minute."""
    key = hashlib.sha256(repr((SUITE, PACKAGES)).encode()).hexdigest()[:12]
    tree = CACHE / f"{SUITE}-{key}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            _make_tree(tree)
    return tree


def _make_tree(tree: Path) -> None:
    fresh = tree.with_name(tree.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", "--include=" + ",".join(PACKAGES), SUITE, str(fresh), MIRROR]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    for package in (fresh / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    fresh.rename(tree)


class Machine:
    """One machine: boots, runs commands, breaks down, boots again with the same disk."""

    def __init__(self, folder: Path) -> None:
        """Prepare the disk in `folder`."""
        self.name = f"autodl-{secrets.token_hex(4)}"
        self.root = folder / "root"
        self._folder = folder
        self._layer = folder / "layer"
        self._leader = 0
        self._container: subprocess.Popen[bytes] | None = None
        self.root.mkdir()
        self._layer.mkdir()
        # In memory: where the tests' own disk is such a layer itself, another one can't lie on it.
        _run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(self._layer))
        (self._layer / "upper").mkdir()
        (self._layer / "work").mkdir()
        options = f"lowerdir={base_tree()},upperdir={self._layer}/upper,workdir={self._layer}/work"
        _run("mount", "-t", "overlay", "-o", options, "overlay", str(self.root))

    # --- life ---

    def boot(self) -> None:
        """Start it, and return when all that starts at boot has."""
        command = ["systemd-nspawn", "--quiet", "--directory", str(self.root), "--machine", self.name, "--boot"]
        command += ["--private-network", "--register=no", "--keep-unit", "--console=pipe"]
        # systemd-nspawn 252 keeps what it does not know from its containers; real machines have it.
        command += ["--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self"]
        with (self._folder / "console.log").open("ab") as console:
            self._container = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        self._leader = wait_until(self._find_leader, "the machine's first process starts", seen=self._console)
        wait_until(self._is_booted, "the machine boots", timeout_s=_BOOT_TIMEOUT_S, seen=self._console)

    def crash(self) -> None:
        """End everything in it at once, as a power cut does; what is on its disk stays."""
        assert self._container is not None
        os.kill(self._leader, signal.SIGKILL)
        self._container.wait(PATIENCE_S)

    def remove(self) -> None:
        """End it and forget its disk."""
        if self._container is not None and self._container.poll() is None:
            self.crash()
        for place in (self.root, self._layer):
            _run("umount", "--lazy", str(place))
        shutil.rmtree(self._folder)

    # --- what is in it ---

    def path(self, inside: str) -> Path:
        """Return where a path of its disk is for the tests; its own mounts (/run, /tmp) are not seen so."""
        return self.root / inside.lstrip("/")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Write a file on its disk."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def run(
        self, *command: str, user: str | None = None, env: Mapping[str, str] | None = None, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it to its end, as root or as a user in their home."""
        return subprocess.run(
            [*self._enter(user, env or {}), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "SYSTEMD_COLORS": "0"},
        )

    def ok(self, *command: str, user: str | None = None, env: Mapping[str, str] | None = None) -> str:
        """Run a command that must succeed; return its output."""
        done = self.run(*command, user=user, env=env)
        assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:], self.recent())
        return done.stdout

    def uid(self, user: str) -> int:
        """Return a user's number."""
        return int(self.ok("id", "-u", user))

    # --- its systemd ---

    def property(self, unit: str, name: str) -> str:
        """Return a unit's property, as `systemctl show` has it."""
        return self.ok("systemctl", "show", "--property", name, "--value", unit).strip()

    def await_property(self, unit: str, name: str, *values: str) -> None:
        """Wait until a unit's property has one of these values."""
        wait_until(
            lambda: self.property(unit, name) in values,
            f"{name} of {unit} is {' or '.join(values)}",
            seen=lambda: (self.property(unit, name), self.recent()),
        )

    def main_pid(self, unit: str) -> int:
        """Return the number of a service's main process, as it is inside."""
        return int(self.property(unit, "MainPID"))

    def cursor(self) -> str:
        """Return the journal's end, for `journal` and `await_entry`."""
        self.ok("journalctl", "--sync")
        [entry] = self._entries("--lines=1")
        return str(entry["__CURSOR"])

    def journal(self, *matches: str, after: str) -> list[Entry]:
        """Return the journal's entries after a cursor that match all of these, such as `EVENT=ready`."""
        self.ok("journalctl", "--sync")
        # journalctl of systemd 252 is not asked to match: behind a cursor it leaves out the first entry that does.
        wanted = [match.split("=", 1) for match in matches]
        entries = self._entries(f"--after-cursor={after}")
        return [entry for entry in entries if all(entry.get(name) == value for name, value in wanted)]

    def filtered(self, *matches: str) -> list[Entry]:
        """Return what journalctl itself finds by these matches."""
        return self._entries(*matches)

    def await_entry(self, *matches: str, after: str) -> Entry:
        """Wait for the first entry that matches; return it."""
        return wait_until(lambda: self.journal(*matches, after=after), str(matches), seen=self.recent)[0]

    def recent(self) -> str:
        done = self.run("journalctl", "--no-pager", "--lines=40", "--output=short-precise")
        return done.stdout[-6000:]

    # --- inside ---

    def _entries(self, *arguments: str) -> list[Entry]:
        lines = self.ok("journalctl", "--quiet", "--no-pager", "--output=json", "--all", *arguments)
        return [json.loads(line) for line in lines.splitlines()]

    def _enter(self, user: str | None, env: Mapping[str, str]) -> Sequence[str]:
        enter = ["nsenter", "--target", str(self._leader), *_NAMESPACES]
        assignments = [f"{name}={value}" for name, value in env.items()]
        if user is None:
            return [*enter, "env", "HOME=/root", *assignments]
        home = f"/home/{user}"
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return [*enter, *become, "env", "-C", home, f"HOME={home}", f"USER={user}", *assignments]

    def _find_leader(self) -> int:
        assert self._container is not None
        assert self._container.poll() is None, self._console()
        children = Path(f"/proc/{self._container.pid}/task/{self._container.pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        return 0

    def _is_booted(self) -> bool:
        done = self.run("systemctl", "is-system-running", "--wait", timeout_s=_BOOT_TIMEOUT_S)
        return done.stdout.strip() in ("running", "degraded")

    def _console(self) -> str:
        return (self._folder / "console.log").read_text(errors="replace")[-2000:]


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """Make a machine that is not booted; at the end nothing is left of it."""
    made = Machine(folder)
    try:
        yield made
    finally:
        made.remove()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stderr)
