"""Metalink files on the command line: read, told of, and turned into requests.

Runs as: the caller.  Talks to: the files or stdin, stderr.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click

from autodl_lib.cli.metalink import MetalinkFile, parse_metalink
from autodl_lib.cli.metalink_reader import MAX_METALINK_BYTES, BadMetalink
from autodl_lib.cli.session import complain, stdin_bytes
from autodl_lib.cli.text import clean
from autodl_lib.cli.variation import Variation
from autodl_lib.contract.requests.adding import Add
from autodl_lib.contract.transfer_options import MAX_MIRRORS

_MAX_NOTES = 20


def read_metalinks(sources: Sequence[str]) -> list[MetalinkFile]:
    """Read Metalink files and say what of them is not used.

    Raises: click.UsageError, BadMetalink.
    """
    files: list[MetalinkFile] = []
    notes: list[str] = []
    for source in sources:
        shown = "stdin" if source == "-" else clean(source)
        try:
            metalink = parse_metalink(_content(source, shown))
        except BadMetalink as error:
            raise BadMetalink(f"{shown}: {error}") from None
        files += metalink.files
        notes += [f"{shown}: {note}" for note in metalink.notes]
    for note in notes[:_MAX_NOTES]:
        complain(note)
    if len(notes) > _MAX_NOTES:
        complain(f"and {len(notes) - _MAX_NOTES} more such notes")
    return files


def request_for(file: MetalinkFile, variation: Variation) -> Add:
    """Return the request for one file; what the command line says wins over the Metalink, and adds to it."""
    asked = variation.of(file.urls[0], file.name)
    return replace(
        asked,
        urls=file.urls[:1],
        mirrors=(*file.urls[1:][: MAX_MIRRORS - len(asked.mirrors)], *asked.mirrors),
        output=asked.output or file.name,
        checksums=tuple(dict.fromkeys((*asked.checksums, *file.checksums)))[:16],
        size_bytes=file.size_bytes,
        pieces=file.pieces,
    )


def _content(source: str, shown: str) -> bytes:
    try:
        if source == "-":
            return stdin_bytes().read(MAX_METALINK_BYTES + 1)
        with open(source, "rb") as file:
            return file.read(MAX_METALINK_BYTES + 1)
    except OSError as error:
        raise click.UsageError(f"can't read {shown}: {error.strerror}") from None
