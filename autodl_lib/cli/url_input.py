"""Where URLs come from: arguments, a file or stdin, Metalink files; and how many go in one request.

Runs as: the caller.  Talks to: the input file or stdin.
Invariants: every URL is checked before the first one is sent, so a list with a bad line queues nothing.
Known limits: the whole list is in memory before it is sent.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click

from autodl_lib.cli.session import stdin_bytes
from autodl_lib.cli.text import clean
from autodl_lib.contract.codec import MAX_LINE_BYTES
from autodl_lib.contract.errors import BadUrl
from autodl_lib.contract.light_dataclass import dataclass
from autodl_lib.contract.urls import check_url

URLS_PER_REQUEST = 5000

_BYTES_PER_REQUEST = MAX_LINE_BYTES // 2
_ESCAPED_BYTES = 6
"""What JSON makes of one character at worst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a command line names: URLs, Metalink files, and the folder at its end, if one is there."""

    urls: list[str]
    metalinks: list[str]
    folder: str | None


def find_sources(values: Mapping[str, Any], *, may_end_in_folder: bool) -> Sources:
    """Sort the arguments into URLs, Metalink files and the folder, and read the list of URLs.

    Raises: click.UsageError, BadUrl.
    """
    urls = [argument for argument in values["arguments"] if not _is_metalink(argument)]
    metalinks = [argument for argument in values["arguments"] if _is_metalink(argument)] + list(values["metalinks"])
    input_files = values["input_files"]
    folder = None
    if may_end_in_folder and values["dir"] is None and (len(urls) > 1 or metalinks or input_files):
        urls, folder = split_folder(urls)
    check_urls(urls)
    for source in input_files:
        urls += read_urls(source)
    if not urls and not metalinks:
        raise click.UsageError("which URL? Give one or more, or --input-file", click.get_current_context())
    return Sources(urls=urls, metalinks=metalinks, folder=folder)


def split_folder(arguments: Sequence[str]) -> tuple[list[str], str | None]:
    """Take a folder off the end of `URL... DIR`: the last argument, if it has no `://`."""
    urls = list(arguments)
    if urls and "://" not in urls[-1]:
        return urls[:-1], urls[-1]
    return urls, None


def read_urls(source: str) -> list[str]:
    """Read URLs, one a line, from a file or from stdin (`-`); blank lines and those that begin with # are skipped.

    Raises: click.UsageError where it can't be read, BadUrl with the line's number.
    """
    shown = "stdin" if source == "-" else source
    urls = []
    for number, line in enumerate(_lines(source, shown), 1):
        try:
            url = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            raise BadUrl(f"{shown}, line {number}: not UTF-8; write other characters as %XX") from None
        if not url or url.startswith("#"):
            continue
        try:
            check_url(url)
        except BadUrl as error:
            raise BadUrl(f"{shown}, line {number}: {error}") from None
        urls.append(url)
    if not urls:
        raise click.UsageError(f"no URL in {clean(shown)}")
    return urls


def check_urls(urls: Sequence[str]) -> None:
    """Check URLs that were given as arguments.

    Raises: BadUrl.
    """
    for url in urls:
        check_url(url)


def in_requests(urls: Iterable[str], *, most: int = URLS_PER_REQUEST) -> Iterator[tuple[str, ...]]:
    """Cut URLs into lots that fit a request each, of at most so many."""
    most = max(min(most, URLS_PER_REQUEST), 1)
    lot: list[str] = []
    lot_bytes = 0
    for url in urls:
        url_bytes = (len(url) if url.isascii() else len(url) * _ESCAPED_BYTES) + 3
        if lot and (len(lot) == most or lot_bytes + url_bytes > _BYTES_PER_REQUEST):
            yield tuple(lot)
            lot, lot_bytes = [], 0
        lot.append(url)
        lot_bytes += url_bytes
    if lot:
        yield tuple(lot)


def _is_metalink(argument: str) -> bool:
    return argument.lower().endswith((".meta4", ".metalink")) and "://" not in argument and os.path.isfile(argument)


def _lines(source: str, shown: str) -> list[bytes]:
    try:
        if source == "-":
            return stdin_bytes().readlines()
        with open(source, "rb") as file:
            return file.readlines()
    except OSError as error:
        raise click.UsageError(f"can't read {clean(shown)}: {error.strerror}") from None
