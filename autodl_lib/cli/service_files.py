"""What `autodl install-service` writes where: the units that the program brings along, with its own path in them.

Runs as: root for the machine's service, a user for their own.  Talks to: the units beside the program.
Invariants: each file says in its first line who wrote it, and only such a file is ever replaced or removed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from autodl_lib.cli.example_settings import example_settings
from autodl_lib.contract.light_dataclass import dataclass

MARK = "# Written by `autodl install-service`; `autodl install-service --uninstall` removes it.\n"

_PROGRAM = re.compile(r"^(Exec\w+=[-@:+!]*)/usr/bin/autodl(?=\s|$)", re.MULTILINE)
_PLAIN_WORD = re.compile(r"[\w@+,./:=-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFile:
    """A file and its text; one that `is_config` is left alone once somebody has changed it."""

    path: Path
    text: str
    is_config: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose service it is, and below which folder it is installed: `/`, or the tree of an image."""

    is_system: bool
    root: Path = Path("/")

    @property
    def runs_here(self) -> bool:
        """Tell whether this system's own systemd is concerned."""
        return self.root == Path("/")


def service_files(scope: Scope, program: Sequence[str]) -> tuple[ServiceFile, ...]:
    """Return what to write; `program` is what runs autodl, as words."""
    units = _units()
    config = MARK + example_settings()
    if not scope.is_system:
        home = scope.root / _config_home().relative_to("/")
        return (
            *(_unit(units / "user" / name, home / "systemd" / "user" / name, program) for name in _unit_names(units)),
            ServiceFile(path=home / "autodl" / "autodl.toml", text=config, is_config=True),
        )
    etc = scope.root / "etc"
    return (
        *(_unit(units / name, etc / "systemd" / "system" / name, program) for name in _unit_names(units)),
        _unit(units / "sysusers.d-autodl.conf", etc / "sysusers.d" / "autodl.conf", program),
        _unit(units / "tmpfiles.d-autodl.conf", etc / "tmpfiles.d" / "autodl.conf", program),
        ServiceFile(path=etc / "autodl" / "autodl.toml", text=config, is_config=True),
    )


def packaged_unit(scope: Scope) -> Path | None:
    """Return the unit that a distribution's package has installed, if there is one."""
    kind = "system" if scope.is_system else "user"
    places = [scope.root / folder / "systemd" / kind / "autodl.service" for folder in ("usr/lib", "lib")]
    return next((place for place in places if place.exists()), None)


def is_ours(path: Path) -> bool:
    """Tell whether a file that is there was written by `install-service`."""
    try:
        with path.open("rb") as file:
            return file.readline() == MARK.encode()
    except FileNotFoundError:
        return False


def unit_word(word: str) -> str:
    """Write a word so that systemd takes it as it stands. Source: systemd.service(5), "Command lines"."""
    if _PLAIN_WORD.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _unit(source: Path, target: Path, program: Sequence[str]) -> ServiceFile:
    command = " ".join(map(unit_word, program))
    text = _PROGRAM.sub(lambda match: match[1] + command, source.read_text("utf-8"))
    return ServiceFile(path=target, text=MARK + text)


def _units() -> Path:
    package = Path(__file__).resolve().parent.parent
    installed = package / "systemd_units"
    # In a clone of the repository they are beside the package.
    return installed if installed.is_dir() else package.parent / "systemd"


def _unit_names(units: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in units.glob("autodl.*")))


def _config_home() -> Path:
    # Source: XDG Base Directory Specification: a relative path in this variable is to be ignored.
    named = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(named if named.startswith("/") else os.path.expanduser("~/.config"))
