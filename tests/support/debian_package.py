"""Builds the Debian package from the tree as it is, and makes an older version of one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from support.daemon import REPO

_PARTS = ("autodl_lib", "completions", "debian", "docs", "etc", "man", "systemd")
_FILES = ("autodl.py", "setup.py", "pyproject.toml", "README.md", "CHANGELOG.md", "KNOWN_LIMITS.md", "LICENSE")
_MADE = ("__pycache__", "*.egg-info", ".debhelper", "*.substvars", "*.debhelper.log", "debhelper-build-stamp")


def build(folder: Path) -> Path:
    """Build the package in `folder`; return it. The tree itself is left as it is."""
    tree = folder / "autodl"
    tree.mkdir(parents=True)
    for part in _PARTS:
        shutil.copytree(REPO / part, tree / part, symlinks=True, ignore=shutil.ignore_patterns(*_MADE))
    (tree / "debian" / "files").unlink(missing_ok=True)
    for file in _FILES:
        shutil.copy(REPO / file, tree / file)
    # Debian's own Python and setuptools, not those of an environment that tests run in.
    command = ["dpkg-buildpackage", "--unsigned-source", "--unsigned-changes", "--build=binary"]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": str(folder)}
    done = subprocess.run(
        command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-4000:]
    [package] = folder.glob("autodl_*_all.deb")
    return package


def older(package: Path, version: str) -> Path:
    """Return the same package as if it were that version."""
    folder = package.parent / version
    _run("dpkg-deb", "--raw-extract", str(package), str(folder))
    control = folder / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version: .*", f"Version: {version}", control.read_text(), flags=re.MULTILINE))
    made = package.with_name(f"autodl_{version}_all.deb")
    _run("dpkg-deb", "--root-owner-group", "--build", str(folder), str(made))
    return made


def field(package: Path, name: str) -> str:
    """Return a field of the package's control file."""
    return _run("dpkg-deb", "--field", str(package), name).strip()


def contents(package: Path) -> dict[str, str]:
    """Return what the package installs: path, and mode and owner as `ls -l` shows them."""
    lines = _run("dpkg-deb", "--contents", str(package)).splitlines()
    words = [line.split(maxsplit=5) for line in lines]
    return {path.removeprefix("."): f"{mode} {owner}" for mode, owner, _, _, _, path in words}


def control_file(package: Path, name: str) -> str:
    """Return one of the package's control files, such as `conffiles`."""
    return _run("dpkg-deb", "--info", str(package), name)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout
