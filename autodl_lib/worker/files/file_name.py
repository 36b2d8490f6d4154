"""Which names a download's files get: the final name, the next free one, the part's and the control file's.

Runs as: the task's owner.  Talks to: nobody; no I/O.
Invariants: every name returned is one path component of valid UTF-8, at most 255 bytes, with no slash, no control
character, and is neither `.` nor `..`; a name that a server gave never starts with a dot.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote_to_bytes, urljoin

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.task import CONTROL_SUFFIX, PART_SUFFIX, is_reserved_name
from autodl_lib.worker.files.disposition import proposed_name
from autodl_lib.worker.network.response_head import ResponseHead
from autodl_lib.worker.network.verdicts import TaskFailed

MAX_NAME_BYTES = 255
FALLBACK_NAME = "index.html"

_PATH = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#]*([^?#]*)")
_MAX_EXTENSION_BYTES = 64
_UNSAFE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
"""Characters that are no text, or make a terminal show another name than there is."""
_DOUBLE_EXTENSIONS = (".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst")


def name_from_response(url: str, head: ResponseHead | None) -> str:
    """Choose the final name when the user gave none."""
    if head is not None and "content-disposition" in head.fields:
        proposed = proposed_name(head.fields["content-disposition"])
        safe = sanitise(proposed, server_given=True) if proposed else ""
        if safe:
            return safe
    final_url = url
    for location in head.locations if head is not None else ():
        final_url = _joined(final_url, location)
    return name_from_url(url) or name_from_url(final_url, server_given=True) or FALLBACK_NAME


def name_from_url(url: str, *, server_given: bool = False) -> str:
    """Return the last path segment of a URL as a safe name, empty when it has none."""
    match = _PATH.match(url)
    segment = match[1].rpartition("/")[2] if match is not None else ""
    if ";type=" in segment and url.lower().startswith("ftp"):
        segment = segment.partition(";type=")[0]
    text = segment
    if "%" in segment or not segment.isascii():
        text = unquote_to_bytes(segment).decode("utf-8", "replace").replace("\ufffd", "_")
    return sanitise(text, server_given=server_given)


def check_output(name: str) -> str:
    """Return a name that the user gave, as it is.

    Raises: TaskFailed when it is no plain file name, or one of those of part files.
    """
    too_long = len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES
    if name in ("", ".", "..") or "/" in name or "\0" in name or too_long or not _is_valid(name):
        raise TaskFailed(FailureCode.FOLDER, f"the output name must be a plain file name: {name[:300]!r}")
    if is_reserved_name(name):
        raise TaskFailed(FailureCode.FOLDER, f"the output name is that of a part or control file: {name[:300]!r}")
    return name


def sanitise(proposed: str, *, server_given: bool) -> str:
    """Make a safe name of a proposed one; empty when nothing is left of it."""
    name = proposed.replace("\\", "/").rpartition("/")[2]
    name = _UNSAFE.sub("_", name).strip(" ").rstrip(" .")
    if server_given:
        body = name.lstrip(".")
        name = "_" * (len(name) - len(body)) + body
    if name in ("", ".", ".."):
        return ""
    if is_reserved_name(name):
        name = "_" + name[1:]
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    stem, extension = split_extension(name)
    return _cut(stem, MAX_NAME_BYTES - len(extension.encode())) + extension


def numbered(name: str, number: int) -> str:
    """Return `NAME.1.EXT` for `NAME.EXT`, shortened to fit."""
    stem, extension = split_extension(name)
    return _cut(stem, MAX_NAME_BYTES - len(f".{number}{extension}".encode())) + f".{number}{extension}"


def split_extension(name: str) -> tuple[str, str]:
    """Split `NAME.EXT`; a leading dot starts no extension, `.tar.gz` and its like are one."""
    for double in _DOUBLE_EXTENSIONS:
        if name.lower().endswith(double) and len(name) > len(double):
            return name[: -len(double)], name[-len(double) :]
    stem, dot, extension = name.rpartition(".")
    if not dot or not stem.strip(".") or not extension or len(extension.encode()) > _MAX_EXTENSION_BYTES:
        return name, ""
    return stem, dot + extension


def part_name(name: str) -> str:
    """Return the name of the part file that becomes `name`."""
    return _hidden(name) + PART_SUFFIX


def control_name(part: str) -> str:
    """Return the name of the control file that belongs to a part file."""
    return part.removesuffix(PART_SUFFIX) + CONTROL_SUFFIX


def is_part_name(name: str) -> bool:
    """Tell whether a name that came with an order can be one of a part file of ours."""
    return (
        name.startswith(".")
        and name.endswith(PART_SUFFIX)
        and "/" not in name
        and "\0" not in name
        and len(name.encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES
    )


def _hidden(name: str) -> str:
    room = MAX_NAME_BYTES - len(PART_SUFFIX) - 1
    if len(name.encode()) <= room:
        return "." + name
    return "." + _cut(name, room - 9) + "~" + hashlib.sha256(name.encode()).hexdigest()[:8]


def _cut(text: str, size_bytes: int) -> str:
    return text.encode()[:size_bytes].decode("utf-8", "ignore")


def _is_valid(name: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in name)


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return url
