"""The commands of the other programs, each as its manual says for the work at hand.

Runs as: the bench.  Talks to: nobody.
Invariants: every program saves to its working directory under the URL's last name. A number of connections is also
given as the number of splits, with the smallest piece that aria2c allows, so that it does use them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_FLOOR = (sys.executable, "-S", str(Path(__file__).resolve().parent / "floor.py"))
ARIA2C_CONNECTIONS = (1, 4, 16)
_INSTALLABLE = ("curl", "aria2c", "wget", "wget2", "axel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One row of a table: the commands that are run at the same time, and which program that is."""

    name: str
    tool: str
    commands: tuple[tuple[str, ...], ...]

    @property
    def ours(self) -> bool:
        """Whether it is autodl."""
        return self.tool == "autodl"

    @property
    def is_installed(self) -> bool:
        """Whether it can be run here."""
        return shutil.which(self.commands[0][0]) is not None


def program(name: str, tool: str, *commands: Iterable[str]) -> Program:
    """Make a Program."""
    return Program(name=name, tool=tool, commands=tuple(tuple(command) for command in commands))


def one_file(url: str, *, floor: bool) -> list[Program]:
    """Return what fetches a single file."""
    found = [program("floor (recv + pwrite)", "floor", (*_FLOOR, url))] if floor else []
    found.append(program("curl", "curl", ("curl", "-sS", "-O", url)))
    found += [program(f"aria2c -x{n}", "aria2c", _aria2c(n, url)) for n in ARIA2C_CONNECTIONS]
    found.append(program("wget", "wget", ("wget", "-q", url)))
    found.append(program("wget2", "wget2", ("wget2", "-q", url)))
    found.append(program("axel -n8", "axel", _axel(url)))
    return found


def large_files_at_once(urls: list[str], url_list: Path) -> list[Program]:
    """Return what fetches a few large files at the same time; where a program can't, several of it are started."""
    at_once = f"-j{len(urls)}"
    several = f"({len(urls)} processes)"
    found = [program("floor (a thread each)", "floor", (*_FLOOR, *urls))]
    found.append(program("curl -Z", "curl", ("curl", "-sS", "-Z", "--remote-name-all", *urls)))
    found.append(program(f"curl {several}", "curl", *(("curl", "-sS", "-O", url) for url in urls)))
    for n in ARIA2C_CONNECTIONS:
        found.append(program(f"aria2c -x{n}", "aria2c", (*_aria2c(n), at_once, "-i", str(url_list))))
    found.append(program(f"wget {several}", "wget", *(("wget", "-q", url) for url in urls)))
    found.append(program("wget2", "wget2", ("wget2", "-q", "-i", str(url_list))))
    found.append(program(f"axel -n8 {several}", "axel", *(_axel(url) for url in urls)))
    return found


def small_files(url_list: Path, curl_config: Path) -> list[Program]:
    """Return what fetches many small files."""
    urls, config = str(url_list), str(curl_config)
    return [
        program("floor (8 connections)", "floor", (*_FLOOR, "-i", urls)),
        program("curl (one by one)", "curl", ("curl", "-sS", "-K", config)),
        program("curl -Z (16)", "curl", ("curl", "-sS", "-Z", "--parallel-max", "16", "-K", config)),
        program("aria2c -j16", "aria2c", ("aria2c", "-q", "-j16", "-i", urls)),
        program("wget", "wget", ("wget", "-q", "-i", urls)),
        program("wget2", "wget2", ("wget2", "-q", "-i", urls)),
    ]


def write_lists(urls: list[str], folder: Path) -> tuple[Path, Path]:
    """Write the URLs as a list and as a configuration of curl; return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    url_list, curl_config = folder / "urls.txt", folder / "curl.cfg"
    url_list.write_text("".join(f"{url}\n" for url in urls))
    curl_config.write_text("".join(f'url = "{url}"\noutput = "{url.rpartition("/")[2]}"\n' for url in urls))
    return url_list, curl_config


def versions() -> dict[str, str | None]:
    """Return what each other program says of its version; None: it is not installed."""
    found: dict[str, str | None] = {}
    for tool in _INSTALLABLE:
        found[tool] = None
        if shutil.which(tool):
            said = subprocess.run([tool, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
            found[tool] = said.stdout.partition("\n")[0]
    return found


def _aria2c(connections: int, *urls: str) -> tuple[str, ...]:
    return ("aria2c", "-q", f"-x{connections}", f"-s{connections}", "-k1M", *urls)


def _axel(url: str) -> tuple[str, ...]:
    return ("axel", "-q", "-n8", url)
