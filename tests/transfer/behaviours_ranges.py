"""Behaviours: servers that are odd about ranges and validators."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from behaviour import (
    BIG,
    BIG_BYTES,
    GOOD,
    HALF_BYTES,
    LOGIN,
    OTHER_BIG,
    OTHER_DATE,
    Behaviour,
    Either,
    Fails,
    Right,
    always,
    in_turn,
    ruled,
)
from support.misbehaving_cases import Case, Page, Rule, Turn

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.transfer_options import TransferOptions

_UNVALIDATED = replace(GOOD, etag=None, last_modified=None)
_WEAK = replace(GOOD, etag='W/"v1"', last_modified=None)
_DATED = replace(GOOD, etag=None)
_NEW = replace(GOOD, body=OTHER_BIG, etag='"v2"', last_modified=OTHER_DATE)
_BOTH = Right(any_of=(BIG, OTHER_BIG), attempts=3)


def _ranged(**changes: object) -> Rule:
    """Return the rule that requests for a range are answered with these changes."""
    return Rule(ranged=True, case=replace(GOOD, **changes))  # type: ignore[arg-type]


def _error(status: str, *headers: str) -> Case:
    """Return a page that says what is wrong."""
    return replace(LOGIN, status=status, headers=("Content-Type: text/html", *headers))


RANGES = (
    always("a good server", GOOD),
    always("ranges are ignored, and nothing is said of them", replace(GOOD, ranges=False)),
    always("Accept-Ranges: none, and none there are", replace(GOOD, ranges=False, headers=("Accept-Ranges: none",))),
    always("Accept-Ranges: none, although ranges work", replace(GOOD, headers=("Accept-Ranges: none",))),
    always(
        "Accept-Ranges: bytes, but ranges are ignored", replace(GOOD, ranges=False, headers=("Accept-Ranges: bytes",))
    ),
    always("a 206 says to begin one byte later", replace(GOOD, range_shift=1)),
    always("a 206 says to begin one byte earlier", replace(GOOD, range_shift=-1)),
    always(
        "a 206 says to end one byte later than it does", replace(GOOD, content_range="bytes {first}-{beyond}/9999999")
    ),
    always(
        "a 206 says to end one byte earlier than it does", replace(GOOD, content_range="bytes {first}-{before}/{total}")
    ),
    always("a 206 has another total", replace(GOOD, range_total=str(BIG_BYTES + 1))),
    always("a 206 has a total that is less than its last byte", replace(GOOD, range_total="17")),
    always("a 206 does not know the total", replace(GOOD, range_total="*")),
    always("a 206 has a total that is no number", replace(GOOD, range_total="many")),
    always("a 206 has no Content-Range", replace(GOOD, content_range="")),
    always("a 206 is of another unit", replace(GOOD, content_range="seconds {first}-{last}/{total}")),
    always(
        "a 206 has a Content-Range beyond 64 bits",
        replace(GOOD, content_range="bytes {first}-{last}/99999999999999999999"),
    ),
    always("a 206 says to end before it begins", replace(GOOD, content_range="bytes {last}-{first}/{total}")),
    always("a 206 has bytes behind its range", replace(GOOD, range_extra=b"more than that")),
    always("a 206 is shorter than it says", replace(GOOD, range_missing=1000), Right(attempts=8)),
    always("a 206 has only some of what was asked for", replace(GOOD, range_length=300_000), Right(attempts=20)),
    always("a 206 begins at a block's begin", replace(GOOD, range_align=1_000_003)),
    always("a 206 is of other bytes, a little later", replace(GOOD, range_moved=100)),
    always("a 206 is of other bytes, a little earlier", replace(GOOD, range_moved=-100)),
    always("a 206 goes on to the end of the file", replace(GOOD, ignore_range_end=True)),
    always("a range comes as multipart/byteranges", replace(GOOD, multipart=True)),
    always("a range comes with status 200", replace(GOOD, partial_status="200 OK"), Right(attempts=3)),
    always(
        "a range comes with status 200 and no Content-Range",
        replace(GOOD, partial_status="200 OK", content_range=""),
        Right(attempts=3),
    ),
    always("ranges are of a gzip of the file", replace(GOOD, headers=("Content-Encoding: gzip",))),
    ruled("ranges only are chunked", _ranged(chunked=True)),
    always(
        "the whole file comes as a 206",
        replace(GOOD, force_range=(0, BIG_BYTES - 1)),
        Either(fails=Fails(codes=(FailureCode.HTTP_ERROR, FailureCode.PROTOCOL))),
    ),
    always(
        "the first half comes as a 206, whatever is asked for",
        replace(GOOD, force_range=(0, HALF_BYTES - 1)),
        Fails(codes=(FailureCode.HTTP_ERROR, FailureCode.PROTOCOL, FailureCode.TRUNCATED)),
    ),
    always(
        "the second half comes as a 206, whatever is asked for",
        replace(GOOD, force_range=(HALF_BYTES, BIG_BYTES - 1)),
        Fails(codes=(FailureCode.HTTP_ERROR, FailureCode.PROTOCOL, FailureCode.TRUNCATED)),
    ),
    ruled(
        "a valid range is answered 416",
        Rule(ranged=True, case=_error("416 Range Not Satisfiable", f"Content-Range: bytes */{BIG_BYTES}")),
    ),
    ruled(
        "a valid range is answered 416 with another size",
        Rule(ranged=True, case=_error("416 Range Not Satisfiable", "Content-Range: bytes */17")),
    ),
    *(
        ruled(
            f"ranges of the second half are answered {status[:3]}",
            Rule(begins_from=HALF_BYTES, case=_error(status)),
            outcome=Right(attempts=3),
        )
        for status in ("400 Bad", "403 No", "404 Missing", "410 Gone", "429 Slow", "500 Oops", "501 What", "503 Busy")
    ),
    *(
        ruled(
            f"every range is answered {status[:3]}", Rule(ranged=True, case=_error(status)), outcome=Right(attempts=3)
        )
        for status in ("403 No", "404 Missing", "405 Never")
    ),
    replace(
        ruled("every range is answered 503", Rule(ranged=True, case=_error("503 Busy"))),
        after_kill=Either(right=Right(attempts=3), fails=Fails(codes=(FailureCode.SERVER_BUSY,))),
    ),
    ruled(
        "every range is answered with a log-in page and 200", Rule(ranged=True, case=LOGIN), outcome=Right(attempts=3)
    ),
    ruled(
        "some ranges are answered with a log-in page and 200",
        Rule(begins_from=HALF_BYTES, case=LOGIN),
        outcome=Right(attempts=3),
    ),
    ruled(
        "a range is answered with a log-in page as a 206",
        Rule(ranged=True, case=replace(LOGIN, status="206 Partial Content")),
    ),
    ruled("a range is answered 204", Rule(ranged=True, case=Case(status="204 No Content", lengths=()))),
    ruled("a range is answered 304", Rule(ranged=True, case=Case(status="304 Not Modified", lengths=(), etag='"v1"'))),
    ruled(
        "ranges are sent to the log-in page",
        Rule(ranged=True, case=Case(status="302 Found", headers=("Location: /login",))),
        outcome=Right(attempts=3),
        pages=(Page(path="/login", cases=(LOGIN,)),),
    ),
    ruled("the third request is answered with a log-in page and 200", Rule(numbers=(3,), case=LOGIN)),
    ruled("HEAD is answered 405", Rule(method="HEAD", case=Case(status="405 Method Not Allowed"))),
)

VALIDATORS = (
    always("a weak ETag and a date", replace(GOOD, etag='W/"v1"')),
    always("a weak ETag only", _WEAK),
    always("a date only", _DATED),
    always("no validator", _UNVALIDATED),
    always("an ETag without quotes", replace(GOOD, etag="v1", last_modified=None)),
    always("an ETag of ten thousand letters", replace(GOOD, etag=f'"{"x" * 10_000}"', last_modified=None)),
    always("an empty ETag", replace(GOOD, etag='""')),
    always("a date that is none", replace(GOOD, etag=None, last_modified="yesterday")),
    always("a date to come", replace(GOOD, etag=None, last_modified="Fri, 01 Jan 2100 00:00:00 GMT")),
    always("the ETag changes at each request, the bytes don't", replace(GOOD, etag='"v{request}"'), Right(attempts=3)),
    always(
        "each backend has its own ETag", replace(GOOD, etag='"v{connection}"', last_modified=None), Right(attempts=3)
    ),
    always(
        "the date changes at each request, the bytes don't",
        replace(_DATED, last_modified="Tue, 01 Jul 2025 10:00:0{request} GMT"),
        Right(attempts=3),
    ),
    in_turn("the ETag is gone after the first answer", replace(GOOD, last_modified=None), _UNVALIDATED),
    in_turn("the ETag comes with the second answer only", _UNVALIDATED, GOOD),
    in_turn("the ETag becomes weak", GOOD, replace(GOOD, etag='W/"v1"')),
    always("If-Range is always refused", replace(GOOD, refuse_if_range=True), Right(attempts=3)),
    always("If-Range is refused with an ETag", replace(GOOD, if_range_by_date=True), Right(attempts=3)),
    always("If-Range is ignored", replace(GOOD, check_if_range=False)),
    in_turn("the file changes after the first answer", GOOD, _NEW, outcome=_BOTH),
    in_turn("the file changes, and If-Range is ignored", GOOD, replace(_NEW, check_if_range=False), outcome=_BOTH),
    in_turn(
        "the file changes, and its validators are gone", GOOD, replace(_UNVALIDATED, body=OTHER_BIG), outcome=_BOTH
    ),
    in_turn(
        "the file changes, and ranges are of no known version",
        GOOD,
        replace(_UNVALIDATED, body=OTHER_BIG, check_if_range=False),
        outcome=_BOTH,
    ),
    in_turn(
        "the file changes to a shorter one under the same ETag",
        GOOD,
        replace(GOOD, body=OTHER_BIG[:-5000]),
        outcome=Right(any_of=(BIG, OTHER_BIG[:-5000]), attempts=3),
    ),
    in_turn(
        "the file changes to a longer one of the same date",
        _DATED,
        replace(_DATED, body=OTHER_BIG + b"more"),
        outcome=Right(any_of=(BIG, OTHER_BIG + b"more"), attempts=3),
    ),
    in_turn(
        "two backends have two versions",
        GOOD,
        _NEW,
        outcome=Right(any_of=(BIG, OTHER_BIG), attempts=6),
        turn=Turn.CYCLE,
    ),
    in_turn(
        "two backends have two versions, and ignore If-Range",
        GOOD,
        replace(_NEW, check_if_range=False),
        replace(GOOD, check_if_range=False),
        outcome=Right(any_of=(BIG, OTHER_BIG), attempts=6),
        turn=Turn.CYCLE,
    ),
    in_turn(
        "each connection gets its own version",
        GOOD,
        _NEW,
        outcome=Right(any_of=(BIG, OTHER_BIG), attempts=6),
        turn=Turn.BY_CONNECTION,
    ),
    in_turn(
        "other bytes at each request and no validator",
        _UNVALIDATED,
        replace(_UNVALIDATED, body=OTHER_BIG),
        outcome=_BOTH,
        turn=Turn.CYCLE,
    ),
    in_turn(
        "other bytes at each request under one weak ETag",
        _WEAK,
        replace(_WEAK, body=OTHER_BIG),
        outcome=_BOTH,
        turn=Turn.CYCLE,
    ),
    in_turn(
        "other bytes of other lengths at each request",
        _UNVALIDATED,
        replace(_UNVALIDATED, body=OTHER_BIG[:-77]),
        outcome=Right(any_of=(BIG, OTHER_BIG[:-77]), attempts=3),
        turn=Turn.CYCLE,
    ),
    Behaviour(
        name="other bytes under one strong ETag, which only a checksum shows",
        pages=(Page(cases=(GOOD, replace(GOOD, body=OTHER_BIG)), turn=Turn.CYCLE),),
        options=TransferOptions(checksums=(f"sha256={hashlib.sha256(BIG).hexdigest()}",)),
        outcome=Either(right=Right(attempts=3), fails=Fails(codes=(FailureCode.CHECKSUM,))),
    ),
)
