"""What the misbehaving server can be told to answer: a `Case` is one answer, a `Rule` says when, a `Page` has both.

All of it is data; what it does on the wire is in misbehaving_answers.py and misbehaving_server.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One answer.

    In `etag`, `last_modified` and `headers`, `{request}` and `{connection}` become the number of the request for
    this path and of the server's connection, both from 1.
    """

    body: bytes = b""
    status: str = "200 OK"
    headers: tuple[str, ...] = ()
    etag: str | None = None
    last_modified: str | None = None

    # How it answers a request for a range.
    ranges: bool = True
    check_if_range: bool = True
    """False: a range is sent whatever If-Range says."""
    refuse_if_range: bool = False
    """The whole file is sent to every If-Range, the right ones too."""
    if_range_by_date: bool = False
    """If-Range is understood with a date only."""
    range_shift: int = 0
    """Moves the range that a 206 says it is, while its bytes are those that were asked for."""
    range_moved: int = 0
    """Moves the bytes of a 206 and what it says."""
    range_total: str | None = None
    range_length: int | None = None
    """The most bytes that a 206 has."""
    range_extra: bytes = b""
    """What a 206 has behind the last byte of its Content-Range."""
    range_missing: int = 0
    """So many bytes of its Content-Range a 206 does not have; its Content-Length says so."""
    range_align: int = 1
    """A range begins at a multiple of this, at or before the byte that was asked for, and says so."""
    ignore_range_end: bool = False
    """A range is sent to the end of the file, and says so."""
    content_range: str | None = None
    """In place of `bytes {first}-{last}/{total}`; empty: none."""
    partial_status: str = "206 Partial Content"
    multipart: bool = False
    """One range is sent as multipart/byteranges."""
    force_range: tuple[int, int] | None = None
    """First and last byte of the only part that is ever sent, whatever is asked for."""

    # How it frames the body.
    chunked: bool = False
    chunk_end: bytes = b"0\r\n\r\n"
    claim_size: int | None = None
    """A false Content-Length, after which the connection is closed."""
    lengths: tuple[str, ...] | None = None
    """Values of Content-Length as they are sent; the connection is closed after the body."""
    before: bytes = b""
    """Sent before the head, such as `100 Continue`."""
    after: bytes = b""
    """Sent after the body, on a connection that is kept."""
    close: bool = False
    """The connection is closed after the answer, without a word."""

    # How it breaks off.
    cut_after: int | None = None
    reset: bool = False
    """Where it breaks off, it does so with a TCP reset."""
    half_close: bool = False
    """Where it breaks off, only the sending side is closed."""
    hold_after: int | None = None
    """Stops here until `release`."""
    hang_after: int | None = None
    """Stops here until the client goes."""
    raw: bytes | None = None
    """All that is sent, head and body; then the connection is closed."""
    raw_again: bytes = b""
    """Sent after `raw` again and again until the client goes."""

    # How fast it is.
    rate_bps: int | None = None
    """Of each connection; None is no limit."""
    slow_every: int = 0
    """Every so many-th connection is `slow_factor` times slower."""
    slow_factor: int = 20
    head_rate_bps: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRequest:
    """One request as it came; header names in lower case.

    `number` counts the requests for its path, `connection` is the server's, both from 1; `others` is how many
    answers were under way on other connections when it came.
    """

    line: str
    headers: dict[str, str] = field(default_factory=dict)
    number: int = 0
    connection: int = 0
    others: int = 0

    @property
    def method(self) -> str:
        """The method, in capitals."""
        return self.line.partition(" ")[0].upper()

    @property
    def path(self) -> str:
        """The target without its query."""
        words = self.line.split()
        return words[1].partition("?")[0] if len(words) > 1 else ""

    @property
    def range(self) -> str | None:
        """The Range field."""
        return self.headers.get("range")

    @property
    def if_range(self) -> str | None:
        """The If-Range field."""
        return self.headers.get("if-range")

    def wanted(self, size: int) -> list[tuple[int, int]] | None:
        """Return first and last byte of each range of a file of this size; None where none is asked for.

        Ranges that can't be had are left out. Source: RFC 9110, section 14.1.2.
        """
        value = self.range or ""
        if not value.startswith("bytes="):
            return None
        found = []
        for text in value.removeprefix("bytes=").split(","):
            first, dash, last = text.strip().partition("-")
            if not dash or not (first or last) or not (first + last).isdigit():
                return None
            begin = int(first) if first else max(0, size - int(last))
            end = min(int(last), size - 1) if first and last else size - 1
            if begin <= end:
                found.append((begin, end))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A case for some of a page's requests: those for which all that is given here is true."""

    case: Case
    ranged: bool | None = None
    """Whether a range was asked for."""
    begins_from: int | None = None
    """Only ranges that begin at this byte or after it."""
    numbers: tuple[int, ...] = ()
    """Only these requests of the page, from 1."""
    others_from: int = 0
    """Only while at least so many answers are under way on other connections."""
    every_connection: int = 0
    """Only on every so many-th connection."""
    method: str | None = None

    def applies(self, seen: SeenRequest) -> bool:
        """Tell whether this request is one of them."""
        wanted = seen.wanted(2**62)
        return (
            (self.ranged is None or self.ranged == (seen.range is not None))
            and (self.begins_from is None or (bool(wanted) and wanted is not None and wanted[0][0] >= self.begins_from))
            and (not self.numbers or seen.number in self.numbers)
            and seen.others >= self.others_from
            and (not self.every_connection or seen.connection % self.every_connection == 0)
            and self.method in (None, seen.method)
        )


class Turn(StrEnum):
    """Which of a page's cases answers a request."""

    IN_ORDER = "one for each request in turn; the last one stays"
    CYCLE = "one for each request in turn, and around again"
    BY_CONNECTION = "one for each connection in turn, and around again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """All answers for a path: the first rule that applies, else one of the cases."""

    path: str = "/f.bin"
    cases: tuple[Case, ...]
    rules: tuple[Rule, ...] = ()
    turn: Turn = Turn.IN_ORDER

    def case_for(self, seen: SeenRequest, turn: int) -> tuple[Case, bool]:
        """Return the case for a request, and whether it was the turn of one; `turn` counts those before it."""
        for rule in self.rules:
            if rule.applies(seen):
                return rule.case, False
        match self.turn:
            case Turn.IN_ORDER:
                index = min(turn, len(self.cases) - 1)
            case Turn.CYCLE:
                index = turn % len(self.cases)
            case Turn.BY_CONNECTION:
                index = (seen.connection - 1) % len(self.cases)
        return self.cases[index], True


MISSING = Page(path="", cases=(Case(status="404 Not Found", body=b"no such page"),))
