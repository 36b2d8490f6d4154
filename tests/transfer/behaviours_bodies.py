"""Behaviours: bodies that are cut, too long, wrongly framed, slow or empty, and connections that break."""

from __future__ import annotations

import gzip
from dataclasses import replace

from behaviour import (
    BARE,
    BIG,
    GOOD,
    OTHER_SMALL,
    RATE_BPS,
    SMALL,
    TINY,
    Behaviour,
    Either,
    Fails,
    Right,
    always,
    in_turn,
    ruled,
)
from support.misbehaving_cases import Case, Page, Rule, Turn

from autodl_lib.contract.failures import FailureCode as Code

_POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nWRONG"
_PACKED = gzip.compress(BIG[:100_000], mtime=0)
_CHUNKED = replace(BARE, chunked=True)
_BROKEN = (Code.NETWORK, Code.TRUNCATED)
_NO_HTTP = (Code.PROTOCOL, Code.NETWORK, Code.TRUNCATED)


def _extra(name: str, **changes: object) -> Behaviour:
    """Declare a server that is good to one connection at a time, and to all others like this."""
    return ruled(name, Rule(others_from=1, case=replace(GOOD, **changes)), outcome=Right(attempts=2))  # type: ignore[arg-type]


def _lengths(*values: str) -> Case:
    """Return a whole file with these values of Content-Length."""
    return replace(BARE, lengths=values)


BODIES = (
    always("each answer ends after 700,000 bytes", replace(GOOD, cut_after=700_000), Right(attempts=12)),
    always(
        "each answer is reset after 700,000 bytes", replace(GOOD, cut_after=700_000, reset=True), Right(attempts=12)
    ),
    always("each answer hangs after 1,500,000 bytes", replace(GOOD, hang_after=1_500_000), Right(attempts=6)),
    in_turn("only the first answer ends early", replace(GOOD, cut_after=100_000), GOOD, outcome=Right(attempts=2)),
    in_turn(
        "only the first answer is reset", replace(GOOD, cut_after=100_000, reset=True), GOOD, outcome=Right(attempts=2)
    ),
    always(
        "each answer ends early, and there are no ranges",
        replace(TINY, ranges=False, cut_after=30_000),
        Fails(codes=_BROKEN),
    ),
    always("each answer ends early, and there is no validator", replace(BARE, cut_after=30_000), Fails(codes=_BROKEN)),
    always(
        "each answer is reset, and there is no validator",
        replace(BARE, cut_after=30_000, reset=True),
        Fails(codes=_BROKEN),
    ),
    always(
        "the server closes its side in the middle",
        replace(BARE, cut_after=30_000, half_close=True),
        Fails(codes=_BROKEN),
    ),
    always(
        "the server hangs in the middle",
        replace(BARE, hang_after=30_000),
        Fails(codes=(Code.STALLED, Code.TIMEOUT), attempts=1),
    ),
    always(
        "the Content-Length is a number that no computer counts to", _lengths("9" * 23), Fails(codes=(Code.PROTOCOL,))
    ),
    always("the Content-Length is too large", _lengths(str(len(SMALL) + 1)), Fails(codes=_BROKEN)),
    always(
        "the Content-Length is too large, and it can be resumed",
        replace(TINY, lengths=(str(len(SMALL) + 1),)),
        Fails(codes=(*_BROKEN, Code.REMOTE_CHANGED)),
    ),
    always(
        "the Content-Length is too small",
        _lengths("30000"),
        Either(right=Right(any_of=(SMALL[:30_000],)), fails=Fails(codes=_NO_HTTP)),
    ),
    always(
        "the Content-Length is 0, but there is a body",
        _lengths("0"),
        Either(right=Right(any_of=(b"",)), fails=Fails(codes=_NO_HTTP)),
    ),
    always("the Content-Length is negative", _lengths("-5"), Either(fails=Fails(codes=_NO_HTTP))),
    always("the Content-Length is no number", _lengths("many"), Either(fails=Fails(codes=_NO_HTTP))),
    always(
        "the Content-Length is beyond 64 bits", _lengths("99999999999999999999999"), Either(fails=Fails(codes=_NO_HTTP))
    ),
    always(
        "two Content-Lengths, the second too small",
        _lengths(str(len(SMALL)), "30000"),
        Either(fails=Fails(codes=_NO_HTTP)),
    ),
    always(
        "two Content-Lengths, the first too small",
        _lengths("30000", str(len(SMALL))),
        Either(fails=Fails(codes=_NO_HTTP)),
    ),
    always("two Content-Lengths with a comma", _lengths(f"{len(SMALL)}, 30000"), Either(fails=Fails(codes=_NO_HTTP))),
    always(
        "the same Content-Length twice", _lengths(str(len(SMALL)), str(len(SMALL))), Either(fails=Fails(codes=_NO_HTTP))
    ),
    always("no Content-Length", _lengths()),
    always("no Content-Length, and a reset", replace(_lengths(), cut_after=30_000, reset=True), Fails(codes=_BROKEN)),
    always("an answer of HTTP/1.0", replace(BARE, lengths=(), raw=b"HTTP/1.0 200 OK\r\n\r\n" + SMALL)),
    always("chunks", _CHUNKED),
    always("chunks, a strong ETag and ranges", replace(GOOD, chunked=True)),
    always("chunks without the last one", replace(_CHUNKED, chunk_end=b"", close=True), Fails(codes=_BROKEN)),
    always("chunks, cut in the middle of one", replace(_CHUNKED, cut_after=20_000), Fails(codes=_BROKEN)),
    always(
        "chunks, and the last one's line ends in the middle",
        replace(_CHUNKED, chunk_end=b"0\r", close=True),
        Either(fails=Fails(codes=_NO_HTTP)),
    ),
    always(
        "a chunk's size is no number", replace(_CHUNKED, chunk_end=b"zz\r\nabc\r\n0\r\n\r\n"), Fails(codes=_NO_HTTP)
    ),
    always(
        "a chunk's size is beyond 64 bits",
        replace(_CHUNKED, chunk_end=b"ffffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        Fails(codes=_NO_HTTP),
    ),
    always(
        "a chunk's size is negative", replace(_CHUNKED, chunk_end=b"-5\r\nabcde\r\n0\r\n\r\n"), Fails(codes=_NO_HTTP)
    ),
    always(
        "a chunk is longer than it says",
        replace(_CHUNKED, chunk_end=b"2\r\nabcdef\r\n0\r\n\r\n"),
        Fails(codes=_NO_HTTP),
    ),
    always(
        "chunks with extensions and trailers",
        replace(_CHUNKED, chunk_end=b'0;a=b\r\nETag: "other"\r\nContent-Length: 3\r\n\r\n'),
    ),
    always(
        "chunks and a false Content-Length",
        replace(_CHUNKED, headers=("Content-Length: 30000",)),
        Either(fails=Fails(codes=_NO_HTTP)),
    ),
    always(
        "Transfer-Encoding: gzip, unasked",
        replace(BARE, headers=("Transfer-Encoding: gzip",)),
        Either(fails=Fails(codes=_NO_HTTP)),
    ),
    always("Content-Encoding: gzip on plain bytes", replace(TINY, headers=("Content-Encoding: gzip",))),
    always("real gzip, unasked", replace(TINY, body=_PACKED, headers=("Content-Encoding: gzip",))),
    always("an unknown Content-Encoding", replace(TINY, headers=("Content-Encoding: rot13",))),
    always("an empty file", replace(TINY, body=b"")),
    always("an empty file without a Content-Length", replace(BARE, body=b"", lengths=())),
    always("an empty file in chunks", replace(_CHUNKED, body=b"")),
    *(
        always(f"a file of {size} bytes", replace(TINY, body=BIG[:size]))
        for size in (1, 16_383, 16_384, 16_385, 524_287, 524_288, 524_289, 1_048_576)
    ),
    always("one byte a second", replace(TINY, body=b"abc", rate_bps=1)),
)

CONNECTIONS = (
    _extra(
        "every further connection is answered 429 with seconds", status="429 Slow Down", headers=("Retry-After: 2",)
    ),
    _extra(
        "every further connection is answered 503 with a date",
        status="503 Busy",
        headers=("Retry-After: Fri, 01 Jan 2100 00:00:00 GMT",),
    ),
    _extra("every further connection is answered 403", status="403 One Is Enough"),
    _extra("every further connection is reset", raw=b"", reset=True),
    _extra("every further connection is closed", raw=b""),
    _extra("every further connection has no answer", raw=b"", hang_after=0),
    _extra("every further connection hangs in the head", raw=b"HTTP/1.1 206 Partial", hang_after=0),
    _extra("every further connection hangs in the body", hang_after=1000),
    _extra("every further connection brings a byte a second", rate_bps=1),
    _extra("every further connection ends early", cut_after=1000),
    _extra(
        "every further connection is answered with a page",
        status="200 OK",
        body=b"<h1>busy</h1>",
        etag=None,
        last_modified=None,
    ),
    always("one connection in four is 20 times slower", replace(GOOD, slow_every=4)),
    in_turn(
        "the first connection is 20 times slower",
        replace(GOOD, body=BIG[: 2**20], rate_bps=RATE_BPS // 20),
        *[replace(GOOD, body=BIG[: 2**20])] * 7,
        turn=Turn.BY_CONNECTION,
    ),
    in_turn("the first request is closed without an answer", replace(TINY, raw=b""), TINY, outcome=Right(attempts=2)),
    in_turn("the first request is reset", replace(TINY, raw=b"", reset=True), TINY, outcome=Right(attempts=2)),
    always("each request is closed without an answer", replace(TINY, raw=b""), Fails(codes=(Code.NETWORK,))),
    always("each request is reset", replace(TINY, raw=b"", reset=True), Fails(codes=(Code.NETWORK,))),
    always(
        "each request has no answer",
        replace(TINY, raw=b"", hang_after=0),
        Fails(codes=(Code.STALLED, Code.TIMEOUT), attempts=1),
    ),
    always(
        "the server closes after each answer without a word",
        replace(GOOD, headers=("Connection: keep-alive",), close=True),
    ),
    *(
        Behaviour(
            name=f"a false answer waits on the warm connection after {what}",
            pages=(Page(cases=(case,)),),
            then=(Page(path="/g.bin", cases=(replace(TINY, body=OTHER_SMALL, etag='"g"'),)),),
        )
        for what, case in (
            ("a body", replace(TINY, after=_POISON)),
            ("chunks", replace(_CHUNKED, after=_POISON)),
            ("an empty body", Case(after=_POISON)),
            ("a large body", replace(GOOD, after=_POISON)),
        )
    ),
)
