"""What `--checksum` says: `ALGO=HEX` and lists' URLs for all files, lists' files for the one each names.

Runs as: the caller.  Talks to: the files of lists.
Invariants: what can be found wrong is found before anything is sent; a URL of a list is the worker's to fetch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

import click

from autodl_lib.cli.text import clean
from autodl_lib.contract.checksums import (
    MAX_LIST_BYTES,
    Checksum,
    find_in_list,
    is_list_path,
    is_list_url,
    parse_checksum,
)
from autodl_lib.contract.light_dataclass import dataclass
from autodl_lib.contract.urls import check_url

_LONG = 65536
_NAME = re.compile(r"[^\s(]+(?: ?\((.*)\) ?= ?[0-9A-Fa-f]+|[ \t]+\*?(.*))")


class ListFile:
    """A list that was read, under the name that the caller calls it by."""

    def __init__(self, name: str, content: str) -> None:
        self.name = name
        self._content = content
        # A long list is for many URLs, and is not to be understood anew for each.
        is_long = len(content) > _LONG and "-----BEGIN PGP" not in content
        self._lines_of = _by_name(content) if is_long else {}

    def find(self, names: Sequence[str]) -> Checksum | None:
        """Return the checksum of the file that is called one of `names`."""
        lines = [line for name in names for line in self._lines_of.get(name, ())]
        if lines and (found := find_in_list("\n".join(lines), names, self.name)) is not None:
            return found
        return find_in_list(self._content, names, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChecksumInput:
    """What all files must hash to, as the daemon takes it, and the lists that say more of each."""

    fixed: tuple[str, ...]
    lists: tuple[ListFile, ...]

    def of(self, url: str, output: str | None) -> tuple[str, ...]:
        """Return the checksums of one file.

        Raises: click.UsageError where a list has none.
        """
        names = [name for name in (_remote_name(url), output) if name]
        return (*self.fixed, *(_found(one, names) for one in self.lists))


def read_checksums(words: Sequence[str]) -> ChecksumInput:
    """Check the values of `--checksum`, and read the files among them.

    Raises: InvalidParams, BadUrl, click.UsageError.
    """
    fixed: list[str] = []
    lists: list[ListFile] = []
    for word in words:
        if is_list_url(word):
            check_url(word)
            fixed.append(word)
        elif is_list_path(word):
            lists.append(_read(word))
        else:
            fixed.append(str(parse_checksum(word)))
    return ChecksumInput(fixed=tuple(fixed), lists=tuple(lists))


def _read(path: str) -> ListFile:
    shown = clean(path)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise click.UsageError(
            f"can't read the list of checksums {shown}: {error.strerror}; a checksum itself is written ALGO=HEX"
        ) from None
    except ValueError:
        raise click.UsageError(f"{shown!r} is no checksum, and no file") from None
    if len(content) > MAX_LIST_BYTES:
        raise click.UsageError(f"{shown} is no list of checksums: it is over {MAX_LIST_BYTES} bytes long")
    return ListFile(path, content.decode("utf-8", "surrogateescape"))


def _found(one: ListFile, names: Sequence[str]) -> str:
    checksum = one.find(names)
    if checksum is None:
        wanted = " or ".join(map(clean, names)) or "a file whose URL has no name"
        raise click.UsageError(f"{clean(one.name)} has no checksum of {wanted}, or some that contradict each other")
    return str(checksum)


def _by_name(content: str) -> dict[str, list[str]]:
    """Return the lines of a list by the last component of the name in each."""
    lines_of: dict[str, list[str]] = {}
    for line in content.split("\n"):
        match = _NAME.match(line.rstrip())
        if match is not None:
            lines_of.setdefault((match[1] or match[2] or "").rpartition("/")[2], []).append(line)
    return lines_of


def _remote_name(url: str) -> str:
    path = url.partition("://")[2].partition("#")[0].partition("?")[0].partition("/")[2]
    name = path.rpartition("/")[2]
    if url.lower().startswith("ftp"):
        name = name.partition(";type=")[0]
    return unquote(name, errors="surrogateescape")
