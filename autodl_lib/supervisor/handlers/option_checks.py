"""Checks what a caller asks of a transfer, before it is kept: what decoding alone can't see.

Runs as: the supervisor.  Talks to: nobody; no I/O.
Invariants: a file of the owner's is never looked at here; a message never shows a password.
"""

from __future__ import annotations

import math
import re

from autodl_lib.contract.checksums import find_algorithm, has_right_length, is_list_url, parse_checksum
from autodl_lib.contract.errors import InvalidParams
from autodl_lib.contract.proxies import check_proxy
from autodl_lib.contract.transfer_options import PieceHashes, TransferOptions
from autodl_lib.contract.urls import check_url

MAX_PATH_BYTES = 4000

_LINE_BREAK = re.compile(r"[\x00\r\n]")
_NO_HEX = re.compile(r"[^0-9a-f]")
_PATHS = ("cookie_file", "ca_file", "client_cert", "client_key", "continue_from")
_LINES = ("username", "password", "referer", "user_agent", "interface", "proxy", "no_proxy", *_PATHS)
_OF_ONE_FILE = ("mirrors", "size_bytes", "pieces", "continue_from")


def check_label(label: str) -> None:
    """Check the label of an `add`.

    Raises: InvalidParams.
    """
    if not label.strip() or not label.isprintable():
        raise InvalidParams("label must be a word, without control characters")


def check_options(options: TransferOptions, *, urls_num: int) -> None:
    """Check the options of one `add` of so many URLs.

    Raises: InvalidParams, BadUrl.
    """
    for mirror in options.mirrors:
        check_url(mirror)
    for checksum in options.checksums:
        if is_list_url(checksum):
            check_url(checksum)
        else:
            parse_checksum(checksum)
    if options.pieces is not None:
        _check_pieces(options.pieces, options.size_bytes)
    for name in _PATHS:
        check_path(name, getattr(options, name))
    for name in _LINES:
        if _LINE_BREAK.search(getattr(options, name) or ""):
            raise InvalidParams(f"{name} must be one line")
    _check_login(options)
    if options.proxy is not None:
        check_proxy(options.proxy)
    if options.interface == "":
        raise InvalidParams("interface must not be empty")
    if options.if_newer and options.continue_from is not None:
        raise InvalidParams("if_newer and continue_from exclude each other: one replaces a file, the other goes on")
    for name in _OF_ONE_FILE:
        if urls_num > 1 and getattr(options, name) not in ((), None):
            raise InvalidParams(f"{name} is about one file: give a single URL with it")


def check_path(name: str, path: str | None) -> None:
    """Check that a path, if there is one, is absolute or begins with `~`, and can be a path at all.

    Raises: InvalidParams.
    """
    if path is None:
        return
    if not path.startswith(("/", "~")):
        raise InvalidParams(f"{name} must be an absolute path, or begin with ~: {path}")
    if "\0" in path or len(path.encode()) > MAX_PATH_BYTES:
        raise InvalidParams(f"{name} must be a path of at most {MAX_PATH_BYTES} bytes")


def _check_login(options: TransferOptions) -> None:
    if options.username is None:
        if options.password is not None:
            raise InvalidParams("a password needs a username")
    elif not options.username or ":" in options.username:
        # Source: RFC 7617, section 2.
        raise InvalidParams("a username is at least one character, and has no colon in it")


def _check_pieces(pieces: PieceHashes, size_bytes: int | None) -> None:
    algorithm = find_algorithm(pieces.algorithm)
    if algorithm is None:
        raise InvalidParams(f"unknown checksum algorithm of pieces: {pieces.algorithm!r}")
    for digest in pieces.digests:
        if _NO_HEX.search(digest) or not has_right_length(algorithm, digest):
            raise InvalidParams(f"a digest of pieces is no {algorithm} in lower-case hexadecimal: {digest!r}")
    if size_bytes is not None and len(pieces.digests) != math.ceil(size_bytes / pieces.length_bytes):
        raise InvalidParams(
            f"{len(pieces.digests)} pieces of {pieces.length_bytes} bytes do not make a file of {size_bytes} bytes"
        )
