"""What a server's response head says, from the lines that libcurl hands over.

Runs as: the task's owner, `HeadReader.feed` inside of libcurl's callbacks.  Talks to: nobody; no I/O.
Lines are only kept as they come, and looked at when somebody asks: there are ten of them for every small file.
Invariants: only the last response of a redirect chain counts; a head over _MAX_HEAD_BYTES ends the request.
Source: RFC 9110 (section 5), RFC 9112 (section 6.3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

_MAX_HEAD_BYTES = 512 * 1024
_MAX_REASON_LENGTH = 100
_LONGEST_STATUS_LINE = 1024
_LONGEST_REMEMBERED = 128
_LONGEST_LENGTH = 18
"""Digits of a length in bytes that fits into what programs count with."""
_USED = {
    name.encode(): name
    for name in (
        "accept-ranges",
        "content-digest",
        "content-disposition",
        "content-encoding",
        "content-length",
        "content-md5",
        "content-range",
        "content-type",
        "date",
        "digest",
        "etag",
        "last-modified",
        "location",
        "repr-digest",
        "retry-after",
        "transfer-encoding",
    )
}


@dataclass(slots=True)
class ResponseHead:
    """The last response's status line, its fields of _USED (the last of equal ones), and the redirects before it."""

    status: int = 0
    reason: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    locations: list[str] = field(default_factory=list)
    contradiction: str = ""
    """Whether it has several lengths (RFC 9112, section 6.3)."""
    is_whole: bool = True
    """Whether the line was there that ends a head: libcurl takes one that breaks off for an answer without a body."""


class HeadReader:
    """Collects header lines as libcurl hands them over, of one request and all its redirects."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._redirected_bytes = 0
        self._has_left_http = False
        self._is_redirect = False
        self._fresh: list[bytes] = []
        """What came since `_catch_up`."""
        self._lines: list[bytes] = []
        """Of the last response."""
        self._locations: list[str] = []
        self._parsed: ResponseHead | None = None

    def reset(self) -> None:
        """Begin anew, for another request."""
        self.size_bytes = self._redirected_bytes = 0
        self._has_left_http = self._is_redirect = False
        self._fresh, self._lines, self._locations = [], [], []
        self._parsed = None

    def feed(self, line: bytes) -> int | None:
        """Take one line, as libcurl's callback; 0, which ends the request, when the server sends too much of this."""
        self.size_bytes += len(line)
        self._fresh.append(line)
        return None if self.size_bytes <= _MAX_HEAD_BYTES else 0

    def head(self) -> ResponseHead:
        """Parse what has come of the last response."""
        if self._fresh or self._parsed is None:
            self._catch_up()
            self._parsed = _parse_head(self._lines, self._locations)
        return self._parsed

    def has_left_http(self) -> bool:
        """Tell whether a redirect led to FTP, whose replies come as lines, too."""
        if self._fresh:
            self._catch_up()
        return self._has_left_http

    def redirected_bytes(self) -> int:
        """Return how much of `size_bytes` came before the last redirect was followed."""
        if self._fresh:
            self._catch_up()
        return self._redirected_bytes

    def _catch_up(self) -> None:
        fresh, self._fresh = self._fresh, []
        self._parsed = None
        if fresh and not self._lines and _is_one_answer(fresh):
            self._lines = fresh
            return
        seen_bytes = self.size_bytes - sum(map(len, fresh))
        for line in fresh:
            if line.startswith(b"HTTP/"):
                if self._lines:
                    self._keep_location()
                if self._is_redirect:
                    self._redirected_bytes = seen_bytes
                self._lines = []
                self._is_redirect = line.partition(b" ")[2].startswith(b"3")
            elif self._is_redirect and line[:3].isdigit():
                self._has_left_http = True
            seen_bytes += len(line)
            self._lines.append(line)

    def _keep_location(self) -> None:
        left = _parse_head(self._lines, [])
        if 300 <= left.status < 400 and "location" in left.fields:
            self._locations.append(left.fields["location"])


def _is_one_answer(lines: list[bytes]) -> bool:
    """Tell whether lines are of one head alone, and of no redirect."""
    first = lines[0]
    is_redirect = first.partition(b" ")[2].startswith(b"3")
    return first.startswith(b"HTTP/") and not is_redirect and b"\nHTTP/" not in b"".join(lines)


def _parse_head(lines: list[bytes], locations: list[str]) -> ResponseHead:
    if not lines or not lines[0].startswith(b"HTTP/"):
        return ResponseHead(locations=locations)
    status, reason = _status(lines[0][:_LONGEST_STATUS_LINE])
    contradiction = ""
    fields: dict[str, str] = {}
    for line in lines:
        found = _known_field(line) if len(line) <= _LONGEST_REMEMBERED else _field(line)
        if found is not None:
            known, value = found
            if known == "content-length" and fields.get(known, value) != value:
                contradiction = "it has two lengths"
            fields[known] = value
    if len(fields.get("content-length", "")) > _LONGEST_LENGTH and not _is_transfer_coded(fields):
        contradiction = "its length is that of no file"
    is_whole = b"\r\n" in lines or b"\n" in lines
    return ResponseHead(status, reason, fields, locations, contradiction, is_whole)


@lru_cache(maxsize=64)
def _status(line: bytes) -> tuple[int, str]:
    """Return what a status line says: its code, 0 where that makes no sense, and the words after it."""
    words = line.decode("latin-1").strip().split(" ", 2)
    is_code = len(words) > 1 and len(words[1]) == 3 and words[1].isascii() and words[1].isdigit()
    reason = "".join([c for c in words[2] if " " <= c <= "~"])[:_MAX_REASON_LENGTH] if len(words) > 2 else ""
    return int(words[1]) if is_code else 0, reason


def _field(line: bytes) -> tuple[str, str] | None:
    """Return a field's name as _USED has it, and its value; None for one that nobody here uses."""
    name, _, value = line.partition(b":")
    known = _USED.get(name.strip().lower())
    return None if known is None else (known, _decode_value(value.strip()))


_known_field = lru_cache(maxsize=512)(_field)
"""The same, remembered: most lines of a server are those of its answer before."""


def _decode_value(value: bytes) -> str:
    """Decode a field value: UTF-8 where it is that (many servers send it raw), else Latin-1."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _is_transfer_coded(fields: dict[str, str]) -> bool:
    """Tell whether the body's end is told by its coding, so that a length says nothing."""
    return fields.get("transfer-encoding", "").lower() not in ("", "identity")


def content_length(head: ResponseHead) -> int | None:
    """Return the body's length, None when only its end will tell."""
    if _is_transfer_coded(head.fields):
        return None
    value = head.fields.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= _LONGEST_LENGTH else None
