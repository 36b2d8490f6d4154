"""Names of files: whatever is proposed, one safe path component comes out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_lib.contract.failures import FailureCode
from autodl_lib.worker.files.disposition import proposed_name
from autodl_lib.worker.files.file_name import (
    MAX_NAME_BYTES,
    check_output,
    control_name,
    is_part_name,
    name_from_response,
    name_from_url,
    numbered,
    part_name,
    sanitise,
    split_extension,
)
from autodl_lib.worker.network.response_head import ResponseHead
from autodl_lib.worker.network.verdicts import TaskFailed


def is_safe(name: str) -> bool:
    """Tell whether a name is one harmless path component."""
    return (
        0 < len(name.encode("utf-8")) <= MAX_NAME_BYTES
        and name not in (".", "..")
        and not any(c in name for c in "/\0\n\r\t\x7f")
    )


@pytest.mark.parametrize(
    ("proposed", "name"),
    [
        ("a.txt", "a.txt"),
        ("a b.txt", "a b.txt"),
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\a.txt", "a.txt"),
        (".", ""),
        ("..", ""),
        ("...", ""),
        ("/", ""),
        ("   ", ""),
        (".bashrc", "_bashrc"),
        ("..a", "__a"),
        ("a.txt. .", "a.txt"),
        ("a\nb\x00c\x1b[0m", "a_b_c_[0m"),
        ("cod\u202efdp.exe", "cod_fdp.exe"),
        ("\ud800x", "_x"),
        ("日本語.txt", "日本語.txt"),
    ],
)
def test_a_servers_proposal_becomes_safe(proposed: str, name: str) -> None:
    assert sanitise(proposed, server_given=True) == name


def test_a_url_may_name_a_hidden_file() -> None:
    assert name_from_url("http://h/.bashrc") == ".bashrc"


@pytest.mark.parametrize("name", [".f.autodl-part", ".f.autodl-ctl", "." + "n" * 300 + ".autodl-part"])
def test_no_file_is_saved_as_another_ones_part(name: str) -> None:
    assert name_from_url(f"http://h/{name}").startswith("_")
    with pytest.raises(TaskFailed):
        check_output(name)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://h/a/b.txt", "b.txt"),
        ("http://h/a/b.txt?x=/y#z", "b.txt"),
        ("http://h/a%20b.txt", "a b.txt"),
        ("http://h/%e6%97%a5.txt", "日.txt"),
        ("http://h/%ff%fe.txt", "__.txt"),
        ("http://h/a%2fb", "b"),
        ("http://h/%2e%2e", ""),
        ("http://h/", ""),
        ("http://h", ""),
        ("http://h?x=a/b", ""),
        ("http://u:p@h/x", "x"),
        ("ftp://h/a.bin;type=i", "a.bin"),
    ],
)
def test_a_url_names_a_file(url: str, name: str) -> None:
    assert name_from_url(url) == name


def test_the_name_comes_from_the_header_then_the_url_then_the_last_redirect() -> None:
    head = ResponseHead(fields={"content-disposition": "attachment; filename=a"}, locations=["/r/b"])
    assert name_from_response("http://h/c", head) == "a"
    head.fields.clear()
    assert name_from_response("http://h/c", head) == "c"
    assert name_from_response("http://h/", head) == "b"
    assert name_from_response("http://h/", ResponseHead(locations=["http://x/.hidden"])) == "_hidden"
    assert name_from_response("http://h/", None) == "index.html"


@given(st.text(st.characters(codec=None), max_size=400))
def test_no_proposal_is_unsafe(proposed: str) -> None:
    for server_given in (True, False):
        name = sanitise(proposed, server_given=server_given)
        assert name == "" or is_safe(name)
        assert not (server_given and name.startswith("."))


@given(st.text(max_size=300))
def test_no_header_is_unsafe(value: str) -> None:
    name = name_from_response("http://h/", ResponseHead(fields={"content-disposition": value}))
    assert is_safe(name)


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=255), st.integers(1, 99999))
def test_derived_names_fit_a_folder(name: str, number: int) -> None:
    name = name.encode()[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    if name in ("", ".", ".."):
        return
    part = part_name(name)
    for derived in (numbered(name, number), part, control_name(part)):
        assert len(derived.encode()) <= MAX_NAME_BYTES
        assert "/" not in derived
    assert is_part_name(part)


@pytest.mark.parametrize(
    ("name", "numbered_name"),
    [
        ("report.pdf", "report.1.pdf"),
        ("a.tar.gz", "a.1.tar.gz"),
        ("a.TAR.XZ", "a.1.TAR.XZ"),
        ("a.b.c", "a.b.1.c"),
        ("README", "README.1"),
        (".bashrc", ".bashrc.1"),
        (".tar.gz", ".tar.1.gz"),
        ("a.", "a..1"),
        ("é" * 125 + ".html", "é" * 124 + ".1.html"),
    ],
)
def test_a_number_goes_before_the_extension(name: str, numbered_name: str) -> None:
    assert numbered(name, 1) == numbered_name


def test_a_very_long_extension_is_none() -> None:
    assert split_extension("a." + "x" * 100) == ("a." + "x" * 100, "")


def test_long_names_have_parts_of_their_own() -> None:
    first, second = part_name("n" * 254 + "a"), part_name("n" * 254 + "b")
    assert first != second
    assert len(first) == MAX_NAME_BYTES
    assert "~" in first


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("attachment", None),
        ("", None),
        ("attachment; filename=a.txt", "a.txt"),
        ('attachment; filename="a b.txt"', "a b.txt"),
        ('attachment; filename="a\\"b.txt"', 'a"b.txt'),
        ("attachment; FileName = a.txt ; x=y", "a.txt"),
        ("filename=a.txt", "a.txt"),
        ("attachment; filename=a b.txt", "a b.txt"),
        ("attachment; filename*=UTF-8''%e2%82%ac.txt; filename=euro.txt", "€.txt"),
        ("attachment; filename=euro.txt; filename*=utf-8'en'%e2%82%ac.txt", "€.txt"),
        ("attachment; filename*=ISO-8859-1''%a3.txt", "£.txt"),
        ("attachment; filename*=UTF-8''%ff; filename=ok.txt", "ok.txt"),
        ("attachment; filename*=KOI8-R''%c1; filename=ok.txt", "ok.txt"),
        ("attachment; filename*=broken; filename=ok.txt", "ok.txt"),
        ('attachment; name="x; filename=evil"; filename=good', "good"),
        ("attachment; filename=", None),
        ('attachment; filename=""', None),
        ("attachment; filename=first; filename=second", "first"),
        ("attachment; xfilename=a", None),
        ("attachment; filename=" + "a" * 9000, None),
    ],
)
def test_content_disposition_is_read_as_the_rfcs_say(value: str, name: str | None) -> None:
    assert proposed_name(value) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "n" * 256, "\udcff"])
def test_an_output_must_be_a_plain_name(name: str) -> None:
    with pytest.raises(TaskFailed) as caught:
        check_output(name)
    assert caught.value.verdict.code is FailureCode.FOLDER


@pytest.mark.parametrize("name", ["a", ".hidden", "f.autodl-part", "a b", "\\", "n" * 255, "trailing."])
def test_an_output_is_used_as_it_is(name: str) -> None:
    assert check_output(name) == name
