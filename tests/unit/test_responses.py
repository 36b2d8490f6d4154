"""Response heads: what is read from them, and what a body may be used for."""

from __future__ import annotations

import email.utils
import time
from dataclasses import replace

import pytest

from autodl_lib.contract.failures import FailureCode
from autodl_lib.worker.network.response import (
    Accept,
    Agreement,
    AskAgain,
    Refuse,
    RemoteVersion,
    ResumePoint,
    judge,
    judge_headless,
    parse_content_range,
    retry_after,
)
from autodl_lib.worker.network.response_head import HeadReader, ResponseHead, content_length

VERSION = RemoteVersion(size=1000, etag='"a"', last_modified="Tue, 01 Jul 2025 10:00:00 GMT")
ASKED = ResumePoint(offset=100, version=VERSION)
SAME = {"etag": '"a"', "last-modified": "Tue, 01 Jul 2025 10:00:00 GMT"}


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ("bytes 0-9/10", (0, 9, 10)),
        ("Bytes  5-9/10", (5, 9, 10)),
        ("bytes 5-9/*", (5, 9, None)),
        ("bytes 0-0/1", (0, 0, 1)),
        ("bytes 5-4/10", None),
        ("bytes 0-10/10", None),
        ("bytes */10", None),
        ("bytes 0-9", None),
        ("bytes -5/10", None),
        ("bytes 0-9/10, 20-29/30", None),
        ("bytes=0-9/10", None),
        ("bits 0-9/10", None),
        ("bytes 0-9/٣", None),
        ("bytes 0-99999999999999999999/*", None),
        ("", None),
    ],
)
def test_content_range_is_read_strictly(value: str, meaning: tuple[int, int, int | None] | None) -> None:
    assert parse_content_range(value) == meaning


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("120", 120.0),
        ("999999999999999999999", 86400.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("Tue, 01 Jul 2014 10:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400.0),
        ("Tue, 99 Jul 2014 10:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


def test_a_retry_after_date_is_relative_to_now() -> None:
    value = email.utils.formatdate(time.time() + 500, usegmt=True)
    assert 490 <= (retry_after(value) or 0) <= 500


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ({"content-length": "0"}, 0),
        ({"content-length": "10"}, 10),
        ({"content-length": "10", "transfer-encoding": "chunked"}, None),
        ({"content-length": "-1"}, None),
        ({"content-length": "1e3"}, None),
        ({"content-length": "9" * 30}, None),
        ({}, None),
    ],
)
def test_content_length_counts_only_when_it_can(fields: dict[str, str], length: int | None) -> None:
    assert content_length(ResponseHead(fields=fields)) == length


def read(*lines: bytes) -> ResponseHead:
    """Feed header lines as libcurl does."""
    reader = HeadReader()
    for line in lines:
        assert reader.feed(line + b"\r\n") is None
    return reader.head()


def test_only_the_last_response_counts() -> None:
    head = read(
        b"HTTP/1.1 302 Found", b"Location: /b", b'ETag: "x"', b"", b"HTTP/1.1 100 Continue", b"", b"HTTP/2 200", b""
    )
    assert (head.status, head.fields, head.locations) == (200, {}, ["/b"])


def test_field_names_have_no_case_and_raw_utf8_is_understood() -> None:
    head = read(b"HTTP/1.1 200 OK", b"CONTENT-disposition:filename=\xc3\xa9", b'ETag: "\xff"', b"")
    assert head.fields == {"content-disposition": "filename=é", "etag": '"ÿ"'}


@pytest.mark.parametrize("line", [b"HTTP/1.1", b"HTTP/1.1 abc", b"HTTP/1.1 2000 x", b"garbage", b""])
def test_a_status_line_that_makes_no_sense_has_no_status(line: bytes) -> None:
    assert read(line).status == 0


def test_an_endless_head_is_stopped() -> None:
    reader = HeadReader()
    answers = {reader.feed(b"X-Filler: " + bytes(1000)) for _ in range(1000)}
    assert answers == {None, 0}


def test_a_whole_file_is_taken_with_its_validators() -> None:
    judgement = judge(ResponseHead(status=200, fields={"content-length": "1000", **SAME}), None)
    assert judgement == Accept(offset=0, version=VERSION, seen=VERSION, end=1000)


def test_a_file_that_came_through_a_proxy_that_says_so_is_taken() -> None:
    assert isinstance(judge(ResponseHead(status=203, fields={"content-length": "1000"}), None), Accept)


@pytest.mark.parametrize("etag", ['W/"a"', "a", '"', '"a', '"é"', '"' + "x" * 2000 + '"'])
def test_a_weak_or_broken_etag_ties_nothing(etag: str) -> None:
    judgement = judge(ResponseHead(status=200, fields={"etag": etag}), None)
    assert isinstance(judgement, Accept)
    assert not judgement.version.has_validator()


def test_the_rest_is_taken_when_all_fits() -> None:
    fields = {"content-range": "bytes 100-999/1000", **SAME}
    assert judge(ResponseHead(status=206, fields=fields), ASKED) == Accept(
        offset=100, version=VERSION, seen=VERSION, end=1000, is_part=True
    )


@pytest.mark.parametrize(
    "change",
    [
        {"etag": '"b"'},
        {"last-modified": "Wed, 02 Jul 2025 10:00:00 GMT"},
        {"content-range": "bytes 100-1999/2000"},
        {"content-range": "bytes 101-999/1000"},
        {"content-range": ""},
        {"etag": 'W/"a"', "last-modified": ""},
    ],
)
def test_the_rest_is_not_taken_when_anything_does_not_fit(change: dict[str, str]) -> None:
    fields = {"content-range": "bytes 100-999/1000", **SAME, **change}
    assert isinstance(judge(ResponseHead(status=206, fields=fields), ASKED), AskAgain)


def test_a_range_nobody_asked_for_is_refused() -> None:
    fields = {"content-range": "bytes 0-9/10"}
    assert isinstance(judge(ResponseHead(status=206, fields=fields), None), Refuse)


def test_the_same_file_whole_in_place_of_the_rest_is_taken_and_another_is_asked_for_plainly() -> None:
    same = judge(ResponseHead(status=200, fields={"content-length": "1000", **SAME}), ASKED)
    other = judge(ResponseHead(status=200, fields={"content-length": "1000", "etag": '"b"'}), ASKED)
    assert isinstance(same, Accept)
    assert (same.offset, same.is_part) == (0, False)
    assert "can't resume" in (same.note or "")
    assert isinstance(other, AskAgain)
    assert "changed" in other.note


def test_two_lengths_are_refused() -> None:
    reader = HeadReader()
    for line in (b"HTTP/1.1 200 OK", b"Content-Length: 10", b"Content-Length: 11", b""):
        reader.feed(line + b"\r\n")
    refused = judge(reader.head(), None)
    assert isinstance(refused, Refuse)
    assert refused.verdict.code is FailureCode.PROTOCOL


def test_416_asks_again_once_for_all() -> None:
    assert isinstance(judge(ResponseHead(status=416), ASKED), AskAgain)
    refused = judge(ResponseHead(status=416), None)
    assert isinstance(refused, Refuse)
    assert refused.verdict.code is FailureCode.HTTP_ERROR


# --- FTP and SFTP ---

AT_S = 1751364000
DATED = RemoteVersion(size=1000, etag=None, last_modified="Tue, 01 Jul 2025 10:00:00 GMT")
UNDATED = RemoteVersion(size=1000, etag=None, last_modified=None)


def test_an_ftp_file_goes_on_only_at_the_same_size_and_time() -> None:
    asked = ResumePoint(offset=100, version=DATED)
    assert judge_headless(1000, AT_S, asked) == Accept(offset=100, version=DATED, seen=DATED, end=1000, is_part=True)
    for total, changed_at in ((1001, AT_S), (None, AT_S), (1000, AT_S + 1), (1000, None), (None, None)):
        assert isinstance(judge_headless(total, changed_at, asked), AskAgain)
    assert judge_headless(1000, AT_S, None) == Accept(offset=0, version=DATED, seen=DATED, end=1000)
    assert isinstance(judge_headless(None, None, None), Accept)


@pytest.mark.parametrize("changed_at", [None, AT_S])
def test_a_size_alone_makes_no_ftp_file_the_same(changed_at: int | None) -> None:
    assert isinstance(judge_headless(1000, changed_at, ResumePoint(offset=100, version=UNDATED)), AskAgain)


@pytest.mark.parametrize("changed_at", [-5, 0, 253402300800, 2**62])
def test_a_time_that_makes_no_sense_is_none(changed_at: int) -> None:
    assert judge_headless(1000, changed_at, None) == Accept(offset=0, version=UNDATED, seen=UNDATED, end=1000)


def test_where_a_checksum_decides_the_size_of_an_ftp_file_is_enough() -> None:
    asked = ResumePoint(offset=100, version=UNDATED, agreement=Agreement.SIZE)
    accepted = judge_headless(1000, AT_S, asked)
    assert isinstance(accepted, Accept)
    assert accepted.version == UNDATED, "of the bytes before, nobody knows the time"
    assert isinstance(judge_headless(1001, AT_S, asked), AskAgain)


def test_what_http_began_ftp_goes_on_with_only_as_a_mirror_of_the_same_size_and_time() -> None:
    assert isinstance(judge_headless(1000, AT_S, replace(ASKED, agreement=Agreement.MIRROR)), Accept)
    assert isinstance(judge_headless(1000, AT_S + 1, replace(ASKED, agreement=Agreement.MIRROR)), AskAgain)
    assert isinstance(judge_headless(1000, None, replace(ASKED, agreement=Agreement.MIRROR)), AskAgain)
    assert isinstance(judge_headless(1000, None, ASKED), AskAgain)


def test_parts_in_one_body_are_no_range_though_the_numbers_fit() -> None:
    fields = {**SAME, "content-range": "bytes 100-999/1000"}
    assert isinstance(judge(ResponseHead(status=206, fields=fields), ASKED), Accept)
    several = {**fields, "content-type": "multipart/byteranges; boundary=x"}
    assert isinstance(judge(ResponseHead(status=206, fields=several), ASKED), AskAgain)


@pytest.mark.parametrize("coding", ["\\" * 1000, "gz\u00efp"])
def test_what_is_coded_in_no_way_that_can_be_named_is_not_gone_on_with(coding: str) -> None:
    """A control file has room for names of codings, and not for whatever a server makes up."""
    judgement = judge(ResponseHead(status=200, fields={**SAME, "content-encoding": coding}), None)
    assert isinstance(judgement, Accept)
    assert not judgement.version.has_validator()
    assert judgement.version.coding == ""
