"""Turns a `Case` and a request into the bytes of an answer. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from support.misbehaving_cases import Case, SeenRequest

_BOUNDARY = "THIS_STRING_SEPARATES"
_CHUNK_BYTES = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer as it goes over the wire; `keeps` tells whether the connection may be used again."""

    head: bytes
    body: bytes
    keeps: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    status: str
    lines: tuple[str, ...]
    body: bytes


def compose(case: Case, seen: SeenRequest) -> Answer:
    """Make the answer."""
    content = _content(case, seen)
    lines = [*_filled(case.headers, seen), *content.lines]
    if case.etag is not None:
        lines += _filled((f"ETag: {case.etag}",), seen)
    if case.last_modified is not None:
        lines += _filled((f"Last-Modified: {case.last_modified}",), seen)
    body = content.body
    if case.lengths is not None:
        lines += [f"Content-Length: {length}" for length in case.lengths]
    elif not case.chunked:
        lines.append(f"Content-Length: {len(body) if case.claim_size is None else case.claim_size}")
    if case.chunked:
        lines.append("Transfer-Encoding: chunked")
        body = chunks(body) + case.chunk_end
    if seen.method == "HEAD":
        body = b""
    head = "\r\n".join([f"HTTP/1.1 {content.status}", *lines, "", ""]).encode("utf-8", "surrogateescape")
    framed = case.chunked or (case.claim_size is None and case.lengths is None)
    return Answer(head=case.before + head, body=body + case.after, keeps=framed and not case.close)


def chunks(body: bytes) -> bytes:
    """Encode all but the last chunk, which is empty."""
    pieces = [body[start : start + _CHUNK_BYTES] for start in range(0, len(body), _CHUNK_BYTES)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def _content(case: Case, seen: SeenRequest) -> _Content:
    size = len(case.body)
    if case.force_range is not None:
        return _part(case, *case.force_range)
    if not case.ranges or not case.status.startswith("200") or not _condition_holds(case, seen):
        return _Content(status=case.status, lines=(), body=case.body)
    wanted = seen.wanted(size)
    if wanted is None:
        return _Content(status=case.status, lines=(), body=case.body)
    if not wanted:
        return _Content(status="416 Range Not Satisfiable", lines=(f"Content-Range: bytes */{size}",), body=b"")
    if len(wanted) > 1 or case.multipart:
        return _multipart(case, wanted)
    first, last = wanted[0]
    first = max(0, first - first % case.range_align + case.range_moved)
    last = min(last + case.range_moved, size - 1)
    if first > last:
        return _Content(status="416 Range Not Satisfiable", lines=(f"Content-Range: bytes */{size}",), body=b"")
    if case.ignore_range_end:
        last = size - 1
    if case.range_length is not None:
        last = min(last, first + case.range_length - 1)
    return _part(case, first, last)


def _condition_holds(case: Case, seen: SeenRequest) -> bool:
    condition = seen.if_range
    if condition is None:
        return True
    if case.refuse_if_range or (case.if_range_by_date and condition.startswith('"')):
        return False
    if not case.check_if_range:
        return True
    known = (case.etag, case.last_modified)
    return condition in [_filled((value,), seen)[0] for value in known if value is not None]


def _part(case: Case, first: int, last: int) -> _Content:
    total = case.range_total or str(len(case.body))
    words = "bytes {first}-{last}/{total}" if case.content_range is None else case.content_range
    said = words.format(
        first=first + case.range_shift, last=last + case.range_shift, total=total, beyond=last + 1, before=last - 1
    )
    body = case.body[first : last + 1 - case.range_missing] + case.range_extra
    lines = (f"Content-Range: {said}",) if words else ()
    return _Content(status=case.partial_status, lines=lines, body=body)


def _multipart(case: Case, wanted: list[tuple[int, int]]) -> _Content:
    parts = [
        f"\r\n--{_BOUNDARY}\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Range: bytes {first}-{last}/{len(case.body)}\r\n\r\n".encode()
        + case.body[first : last + 1]
        for first, last in wanted
    ]
    body = b"".join(parts) + f"\r\n--{_BOUNDARY}--\r\n".encode()
    kind = f"Content-Type: multipart/byteranges; boundary={_BOUNDARY}"
    return _Content(status=case.partial_status, lines=(kind,), body=body)


def _filled(lines: tuple[str, ...], seen: SeenRequest) -> list[str]:
    numbers = (("{request}", str(seen.number)), ("{connection}", str(seen.connection)))
    filled = list(lines)
    for mark, number in numbers:
        filled = [line.replace(mark, number) for line in filled]
    return filled
