"""Installs the service's files and takes them away again, and tells systemd.

Runs as: root for the machine's service, a user for their own.  Talks to: the folders of systemd's configuration,
systemctl, systemd-sysusers, systemd-tmpfiles.
Invariants: nothing is written when something is in the way; what somebody else wrote is neither replaced nor removed.
Security: root's service runs only a program that nobody else can change.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autodl_lib.cli.service_files import Scope, ServiceFile, is_ours
from autodl_lib.client.locate import SYSTEM_SOCKET
from autodl_lib.contract.errors import AutodlError, NotAllowed

_UNITS = ("autodl.socket", "autodl.service")
_MOST_LINKS = 40
"""Source: path_resolution(7): more links than this are an error to the kernel."""


@dataclass(slots=True, kw_only=True)
class Done:
    """What was done, in order: files written, removed or kept, commands run or failed."""

    steps: list[tuple[str, str]] = field(default_factory=list)

    def note(self, verb: str, what: object) -> None:
        """Remember one step."""
        self.steps.append((verb, str(what)))


def install(scope: Scope, files: Sequence[ServiceFile]) -> Done:
    """Write the files and have systemd read them.

    Raises: AutodlError where a file of somebody else is in the way, OSError.
    """
    for file in files:
        if not file.is_config and file.path.exists() and not is_ours(file.path):
            raise AutodlError(f"{file.path} was not written by install-service: move it away, then try again")
    done = Done()
    for file in files:
        if file.is_config and file.path.exists():
            done.note("kept", file.path)
            continue
        file.path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        _replace(file)
        done.note("wrote", file.path)
    if scope.runs_here:
        if scope.is_system:
            _run(done, "systemd-sysusers", *_of_folder(files, "sysusers.d"))
            _run(done, "systemd-tmpfiles", "--create", *_of_folder(files, "tmpfiles.d"))
        _systemctl(done, scope, "daemon-reload")
    return done


def uninstall(scope: Scope, files: Sequence[ServiceFile]) -> Done:
    """Stop the service and remove what `install` wrote; a configuration that was changed is kept.

    Raises: OSError.
    """
    done = Done()
    ours = [file for file in files if is_ours(file.path)]
    if scope.runs_here and any(file.path.name in _UNITS for file in ours):
        _systemctl(done, scope, "disable", "--now", *_UNITS)
        if scope.is_system and not _is_active(_UNITS):
            _remove_socket(done)
    for file in files:
        if file in ours and not (file.is_config and file.path.read_text("utf-8") != file.text):
            file.path.unlink()
            done.note("removed", file.path)
        elif file.path.exists():
            done.note("kept", file.path)
        if file.is_config and file.path.parent.is_dir() and not any(file.path.parent.iterdir()):
            file.path.parent.rmdir()
            done.note("removed", file.path.parent)
    if scope.runs_here and ours:
        _systemctl(done, scope, "daemon-reload")
    return done


def check_program(paths: Sequence[str]) -> None:
    """Refuse a program for root's service that others can change, or that a task's owner can't read.

    Raises: NotAllowed.
    """
    advice = "; install it where only root writes: python3 -m venv /opt/autodl && /opt/autodl/bin/pip install ..."
    for path in paths:
        for place in _way_to(path):
            found = os.lstat(place)
            # A link's mode says nothing; in a sticky folder others can't replace what is root's.
            is_open = found.st_mode & stat.S_IWOTH and not stat.S_ISLNK(found.st_mode)
            is_sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
            if found.st_uid != 0 or (is_open and not is_sticky):
                raise NotAllowed(f"root's service would run {path}, and others than root can change {place}{advice}")
            needed = stat.S_IXOTH if stat.S_ISDIR(found.st_mode) else stat.S_IROTH
            if not found.st_mode & needed:
                raise NotAllowed(f"workers of every user would run {path}, and they can't read {place}{advice}")


def _way_to(path: str) -> list[Path]:
    """Return the path and all folders above it, and the same of what it is a link to."""
    places, step = [Path(path).resolve()], os.path.abspath(path)
    while os.path.islink(step) and len(places) < _MOST_LINKS:
        places.append(Path(step))
        step = os.path.abspath(os.path.join(os.path.dirname(step), os.readlink(step)))
    return [above for place in places for above in (place, *place.parents)]


def _is_active(units: Sequence[str]) -> bool:
    if shutil.which("systemctl") is None:
        return False
    asked = ["systemctl", "--quiet", "is-active", *units]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0  # noqa: S603 - names of our units


def _remove_socket(done: Done) -> None:
    """Remove the socket that nobody listens on any more: as long as it is there, clients start no private daemon."""
    with contextlib.suppress(OSError):
        os.unlink(SYSTEM_SOCKET)
        done.note("removed", SYSTEM_SOCKET)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(SYSTEM_SOCKET))


def _of_folder(files: Sequence[ServiceFile], folder: str) -> list[str]:
    return [str(file.path) for file in files if file.path.parent.name == folder]


def _replace(file: ServiceFile) -> None:
    fresh = file.path.with_name(f".{file.path.name}.new")
    fresh.write_text(file.text, "utf-8")
    fresh.chmod(0o644)
    fresh.replace(file.path)


def _systemctl(done: Done, scope: Scope, *words: str) -> None:
    if not os.path.isdir("/run/systemd/system"):  # Source: sd_booted(3)
        done.note("skipped", f"systemctl {' '.join(words)}: systemd does not run here")
        return
    _run(done, "systemctl", *([] if scope.is_system else ["--user"]), *words)


def _run(done: Done, program: str, *words: str) -> None:
    command = " ".join([program, *words])
    if shutil.which(program) is None:
        done.note("skipped", f"{command}: there is no {program}")
        return
    # Programs and words are this module's own; where they are is for root's PATH to say.
    ended = subprocess.run(  # noqa: S603
        [program, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if ended.returncode == 0:
        done.note("ran", command)
    else:
        done.note("failed", f"{command}: {ended.stderr.strip() or f'exit status {ended.returncode}'}")
