"""Behaviours: status lines, headers, redirects, errors and names."""

from __future__ import annotations

import email.utils
import time
from dataclasses import replace

from behaviour import (
    AT_ONCE,
    BIG,
    GOOD,
    LOGIN,
    OTHER_BIG,
    SMALL,
    TINY,
    Behaviour,
    Either,
    Fails,
    Outcome,
    Right,
    always,
    raw,
)
from support.misbehaving_cases import Case, Page, Turn

from autodl_lib.contract.failures import FailureCode as Code

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(SMALL)
_NO_HTTP = Fails(codes=(Code.PROTOCOL, Code.NETWORK))
_MAYBE = Either(fails=_NO_HTTP)
_SLOW = Fails(codes=(Code.TIMEOUT, Code.STALLED), attempts=1)


def _status(status: str, *codes: Code, **more: object) -> Behaviour:
    """Declare a server that has nothing but this status."""
    case = replace(LOGIN, status=status, **more)  # type: ignore[arg-type]
    return always(f"nothing but {status}", case, Fails(codes=codes, attempts=1))


def _retry_after(what: str, value: str, bounds_s: tuple[float, float] | None) -> Behaviour:
    """Declare a server that is busy for so long."""
    case = Case(status="503 Busy", headers=(f"Retry-After: {value}",))
    outcome = Fails(codes=(Code.SERVER_BUSY,), attempts=1, retry_after_s=bounds_s)
    return always(f"busy, and Retry-After is {what}", case, outcome)


def _redirect(location: str, status: str = "302 Found", body: bytes = b"moved") -> Case:
    """Return a redirect."""
    return Case(status=status, headers=(f"Location: {location}",), body=body)


def _moved(name: str, first: Case, *pages: Page, outcome: Outcome = AT_ONCE) -> Behaviour:
    """Declare a server that sends the client elsewhere."""
    return Behaviour(name=name, pages=(Page(cases=(first,)), *pages), outcome=outcome)


def _named(what: str, field: str, name: str | None = None) -> Behaviour:
    """Declare a server that proposes a name."""
    case = replace(TINY, headers=(f"Content-Disposition: {field}",))
    return always(f"a name that is {what}", case, Right(name=name))


HEADS = (
    _status("400 Bad Request", Code.HTTP_ERROR),
    _status("401 Unauthorized", Code.AUTHENTICATION),
    _status("403 Forbidden", Code.AUTHENTICATION),
    _status("404 Not Found", Code.REMOTE_MISSING),
    _status("410 Gone", Code.REMOTE_MISSING),
    _status("416 Range Not Satisfiable", Code.HTTP_ERROR),
    _status("500 Internal Server Error", Code.SERVER_BUSY),
    _status("522 Connection Timed Out", Code.SERVER_BUSY),
    _status("204 No Content", Code.HTTP_ERROR, body=b"", lengths=()),
    _status("205 Reset Content", Code.HTTP_ERROR, body=b""),
    _status("300 Multiple Choices", Code.REDIRECT, Code.HTTP_ERROR),
    _status("304 Not Modified", Code.REDIRECT, Code.HTTP_ERROR, body=b"", lengths=()),
    _status("226 IM Used", Code.HTTP_ERROR),
    _status("999 Request Denied", Code.HTTP_ERROR),
    always("100 Continue before the answer", replace(GOOD, before=b"HTTP/1.1 100 Continue\r\n\r\n")),
    always(
        "103 Early Hints before the answer",
        replace(GOOD, before=b'HTTP/1.1 103 Early Hints\r\nETag: "hint"\r\nContent-Length: 3\r\n\r\n'),
    ),
    always(
        "a hundred 102 Processing before the answer", replace(TINY, before=b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
    ),
    always(
        "100 Continue for ever",
        Case(raw=b"", raw_again=b"HTTP/1.1 100 Continue\r\n\r\n"),
        Fails(codes=(Code.PROTOCOL, Code.NETWORK, Code.TIMEOUT, Code.STALLED), attempts=1),
    ),
    raw("HTTP/0.9", SMALL, _NO_HTTP),
    raw("the banner of another service", b"SSH-2.0-OpenSSH_9.2\r\n", _NO_HTTP),
    raw("a status that is no number", b"HTTP/1.1 banana\r\n\r\n" + SMALL, _NO_HTTP),
    raw("a status of four digits", b"HTTP/1.1 2000 OK\r\n\r\n" + SMALL, _NO_HTTP),
    raw("a version that does not exist", b"HTTP/9.9 200 OK\r\n\r\n" + SMALL, _NO_HTTP),
    raw("an answer of SHOUTcast", b"ICY 200 OK\r\n\r\n" + SMALL, _NO_HTTP),
    raw("no reason in the status line", b"HTTP/1.1 200\r\n" + _OK.partition(b"\r\n")[2] + b"\r\n" + SMALL, Right()),
    raw("line feeds only", _OK.replace(b"\r", b"") + b"\n" + SMALL, Right()),
    raw("a header without a colon", _OK + b"banana\r\n\r\n" + SMALL, _MAYBE),
    raw("a NUL in a header", _OK + b"X-Y: a\0b\r\n\r\n" + SMALL, _MAYBE),
    raw("a folded header", _OK + b"X-Y: a\r\n\tb\r\n\r\n" + SMALL, Right()),
    raw("bytes that are no text in a header", _OK + b"X-Y: \xff\xfe\x80\r\n\r\n" + SMALL, Right()),
    raw(
        "spaces around a header's colon",
        b"HTTP/1.1 200 OK\r\nContent-Length :  %d \r\n\r\n" % len(SMALL) + SMALL,
        _MAYBE,
    ),
    raw("a thousand cookies", _OK + b"Set-Cookie: a=b\r\n" * 1000 + b"\r\n" + SMALL, _MAYBE),
    raw("a header of 1 MiB", _OK + b"X-Y: " + b"z" * 1_048_576 + b"\r\n\r\n" + SMALL, _MAYBE),
    raw("1 MiB of headers", _OK + b"X-Filler: 0123456789abcdef\r\n" * 37_450 + b"\r\n" + SMALL, _NO_HTTP),
    raw("headers without end", _OK, _NO_HTTP, raw_again=b"X-Filler: 0123456789abcdef\r\n" * 100),
    raw("a header without end", _OK + b"X-Y: ", _NO_HTTP, raw_again=b"z" * 4096),
    raw("a head that ends with the connection", _OK, Fails(codes=(Code.PROTOCOL, Code.NETWORK, Code.TRUNCATED))),
    always("a head that comes a byte at a time", replace(TINY, head_rate_bps=200)),
    always(
        "a head that comes a byte at a time and has no end",
        replace(TINY, headers=(f"X-Y: {'z' * 10_000}",), head_rate_bps=20),
        _SLOW,
    ),
    _retry_after("in seconds", "120", (120, 120)),
    _retry_after("0", "0", (0, 0)),
    _retry_after("a date", email.utils.formatdate(time.time() + 3000, usegmt=True), (1, 3000)),
    _retry_after("a date that has passed", "Tue, 01 Jul 2025 10:00:00 GMT", (0, 0)),
    _retry_after("nonsense", "soon", None),
    _retry_after("negative", "-5", None),
    _retry_after("huge", "9" * 30, (3600, 10**9)),
    _retry_after("a date far away", "Fri, 31 Dec 9999 23:59:59 GMT", (3600, 10**9)),
)

REDIRECTS = (
    _moved(
        "a redirect",
        _redirect("/deep/other.bin"),
        Page(path="/deep/other.bin", cases=(GOOD,)),
        outcome=Right(any_of=(BIG,)),
    ),
    _moved(
        "a redirect with a large body",
        _redirect("/g", body=bytes(1_000_000)),
        Page(path="/g", cases=(TINY,)),
        outcome=Right(any_of=(SMALL,)),
    ),
    _moved(
        "a redirect with a body that ends early",
        replace(_redirect("/g"), claim_size=10**12),
        Page(path="/g", cases=(TINY,)),
        outcome=Either(right=Right(any_of=(SMALL,)), fails=Fails(codes=(Code.TRUNCATED, Code.REDIRECT))),
    ),
    _moved(
        "a permanent redirect that keeps the method",
        _redirect("/g", "308 Permanent Redirect"),
        Page(path="/g", cases=(GOOD,)),
        outcome=Right(any_of=(BIG,)),
    ),
    _moved(
        "a redirect to mirrors with two versions",
        _redirect("/g"),
        Page(path="/g", cases=(GOOD, replace(GOOD, body=OTHER_BIG, etag='"v2"')), turn=Turn.CYCLE),
        outcome=Right(any_of=(BIG, OTHER_BIG), attempts=3),
    ),
    Behaviour(
        name="each request is sent to another mirror, and one has another version",
        pages=(
            Page(cases=(_redirect("/a"), _redirect("/b")), turn=Turn.CYCLE),
            Page(path="/a", cases=(GOOD,)),
            Page(path="/b", cases=(replace(GOOD, body=OTHER_BIG, etag='"v2"'),)),
        ),
        outcome=Right(any_of=(BIG, OTHER_BIG), attempts=6),
    ),
    _moved("a redirect to itself", _redirect("/f.bin"), outcome=Fails(codes=(Code.REDIRECT,), attempts=1)),
    _moved("a redirect without a target", Case(status="302 Found"), outcome=Fails(codes=(Code.REDIRECT,), attempts=1)),
    *(
        _moved(
            f"a redirect to {target.partition(':')[0]}",
            _redirect(target),
            outcome=Fails(codes=(Code.REDIRECT, Code.BAD_URL, Code.CONNECT, Code.PROTOCOL), attempts=1),
        )
        for target in (
            "file:///etc/hostname",
            "gopher://127.0.0.1/",
            "sftp://127.0.0.1/etc/hostname",
            "scp://127.0.0.1/x",
            "dict://127.0.0.1/",
            "http://",
        )
    ),
    _moved(
        "a redirect to a page that is gone", _redirect("/gone"), outcome=Fails(codes=(Code.REMOTE_MISSING,), attempts=1)
    ),
)

NAMES = (
    _named("plain", 'attachment; filename="report.pdf"', "report.pdf"),
    _named("above the folder", 'attachment; filename="../../evil"'),
    _named("above the folder, with backslashes", 'attachment; filename="..\\\\..\\\\evil"'),
    _named("absolute", 'attachment; filename="/etc/evil"'),
    _named("above the folder, encoded", "attachment; filename*=UTF-8''%2e%2e%2f%2e%2e%2fevil"),
    _named("UTF-8", "attachment; filename=\"x\"; filename*=UTF-8''na%C3%AFve%20%E2%82%AC.txt", "naïve €.txt"),
    _named("Latin-1", "attachment; filename*=ISO-8859-1''%e9t%e9.txt"),
    _named("in an unknown character set", "attachment; filename*=klingon''abc"),
    _named("not the UTF-8 that it says", "attachment; filename*=UTF-8''%ff%fe.bin"),
    _named("with a NUL", "attachment; filename*=UTF-8''a%00b.bin"),
    _named("with a line break", "attachment; filename*=UTF-8''a%0d%0ab.bin"),
    _named("with letters that turn the reading direction", "attachment; filename*=UTF-8''a%E2%80%AEfdp.exe"),
    _named("300 bytes long", f'attachment; filename="{"n" * 300}.bin"'),
    _named("300 letters of three bytes long", f"attachment; filename*=UTF-8''{'%E2%82%AC' * 300}.bin"),
    _named("empty", 'attachment; filename=""'),
    _named("a dot", 'attachment; filename="."'),
    _named("two dots", 'attachment; filename=".."'),
    _named("spaces and dots", 'attachment; filename=" .. "'),
    _named("hidden", 'attachment; filename=".bashrc"'),
    _named("that of its own part file", 'attachment; filename=".f.bin.autodl-part"'),
    _named("without its closing quote", 'attachment; filename="abc'),
    _named("a home", 'attachment; filename="~/evil"'),
    _named("an option", 'attachment; filename="-rf"'),
)
