"""What `--checksum` says: `ALGO=HEX` and lists' URLs for all files, lists' files for the one each names.

Runs as: the caller.  Talks to: the files of lists.
Invariants: what can be found wrong is found before anything is sent; a URL of a list is the worker's to fetch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import click

from autodl_lib.cli.text import clean
from autodl_lib.contract.checksums import MAX_LIST_BYTES, find_in_list, is_list_path, is_list_url, parse_checksum
from autodl_lib.contract.urls import check_url

_LONG = 65536
_OTHER_LINE = "0" * 64 + "  another-file/\n"
"""Keeps a line without a name from being taken for the whole list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListFile:
    """A list that was read; `name` is how the caller calls it."""

    name: str
    content: str


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
    return ListFile(name=path, content=content.decode("utf-8", "surrogateescape"))


def _found(one: ListFile, names: Sequence[str]) -> str:
    checksum = None
    if len(one.content) > _LONG and "-----BEGIN PGP" not in one.content:
        checksum = find_in_list(_OTHER_LINE + _lines_with(one.content, names), names, one.name)
    if checksum is None:
        checksum = find_in_list(one.content, names, one.name)
    if checksum is None:
        wanted = " or ".join(map(clean, names)) or "a file whose URL has no name"
        raise click.UsageError(f"{clean(one.name)} has no checksum of {wanted}, or some that contradict each other")
    return str(checksum)


def _lines_with(content: str, names: Sequence[str]) -> str:
    """Return the lines with a name in them: a long list is not to be understood anew for each of many URLs."""
    lines = []
    for name in names:
        at = content.find(name)
        while at >= 0:
            end = content.find("\n", at) % (len(content) + 1)
            lines.append(content[content.rfind("\n", 0, at) + 1 : end])
            at = content.find(name, end)
    return "\n".join(lines)


def _remote_name(url: str) -> str:
    path = url.partition("://")[2].partition("#")[0].partition("?")[0].partition("/")[2]
    name = path.rpartition("/")[2]
    if url.lower().startswith("ftp"):
        name = name.partition(";type=")[0]
    return unquote(name, errors="surrogateescape")
