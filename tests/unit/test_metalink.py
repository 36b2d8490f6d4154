"""Metalink files: what is understood, and what hostile ones can't do."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_lib.cli.metalink import Metalink, MetalinkFile, parse_metalink
from autodl_lib.cli.metalink_reader import MAX_FILES, MAX_METALINK_BYTES, MAX_URLS, BadMetalink
from autodl_lib.contract.transfer_options import MAX_PIECES, PieceHashes

NAMESPACE = "urn:ietf:params:xml:ns:metalink"
URL = "<url>http://x.test/f</url>"
SHA1 = hashlib.sha1(b"").hexdigest()
SHA256 = hashlib.sha256(b"").hexdigest()
SHA512 = hashlib.sha512(b"").hexdigest()


def document(*files: str, namespace: str = NAMESPACE) -> bytes:
    return f'<metalink xmlns="{namespace}">{"".join(files)}</metalink>'.encode()


def parse(*files: str) -> Metalink:
    return parse_metalink(document(*files))


def one(inside: str, name: str = "f") -> MetalinkFile:
    [file] = parse(f'<file name="{name}">{inside}</file>').files
    return file


def reason(content: bytes) -> str:
    with pytest.raises(BadMetalink) as refused:
        parse_metalink(content)
    return str(refused.value)


# --- what is understood ---


def test_the_example_of_the_rfc_is_understood() -> None:
    metalink = parse_metalink(
        b"""<?xml version="1.0" encoding="UTF-8"?>
        <metalink xmlns="urn:ietf:params:xml:ns:metalink">
          <published>2009-05-15T12:23:23Z</published>
          <file name="example.ext">
            <size>14471447</size>
            <identity>Example</identity>
            <language>en</language>
            <hash type="sha-256">f0ad929cd259957e160ea442eb80986b5f01000000000000000000000000abcd</hash>
            <url location="de" priority="2">ftp://ftp.example.com/example.ext</url>
            <url location="fr" priority="1">http://example.com/example.ext</url>
            <metaurl mediatype="torrent" priority="2">http://example.com/example.ext.torrent</metaurl>
          </file>
          <file name="example2.ext">
            <size>14471447</size>
            <hash type="sha-256">2f548ce50c459a0270e85a7d63b2383c5523000000000000000000000000abcd</hash>
            <url location="de" priority="1">ftp://ftp.example.com/example2.ext</url>
          </file>
        </metalink>"""
    )
    assert metalink.files == (
        MetalinkFile(
            name="example.ext",
            urls=("http://example.com/example.ext", "ftp://ftp.example.com/example.ext"),
            size_bytes=14471447,
            checksums=("sha256=f0ad929cd259957e160ea442eb80986b5f01000000000000000000000000abcd",),
            pieces=None,
        ),
        MetalinkFile(
            name="example2.ext",
            urls=("ftp://ftp.example.com/example2.ext",),
            size_bytes=14471447,
            checksums=("sha256=2f548ce50c459a0270e85a7d63b2383c5523000000000000000000000000abcd",),
            pieces=None,
        ),
    )
    [note] = metalink.notes
    assert note.startswith("example.ext: 1 of its sources can't be used")


def test_metalink_3_is_understood() -> None:
    metalink = parse_metalink(
        f"""<metalink version="3.0" xmlns="http://www.metalinker.org/"><files><file name="a">
        <size>2048</size>
        <verification><hash type="sha1">{SHA1}</hash>
          <pieces length="1024" type="sha1"><hash piece="0">{SHA1}</hash><hash piece="1">{SHA1}</hash></pieces>
          <signature type="pgp">x</signature>
        </verification>
        <resources><url type="http" preference="10">http://x.test/second</url>
          <url type="bittorrent" preference="100">http://x.test/torrent</url>
          <url type="http">http://x.test/last</url>
          <url type="ftp" preference="90">ftp://x.test/first</url></resources>
        </file></files></metalink>""".encode()
    )
    [file] = metalink.files
    assert file.urls == ("ftp://x.test/first", "http://x.test/second", "http://x.test/last")
    assert (file.size_bytes, file.checksums) == (2048, (f"sha1={SHA1}",))
    assert file.pieces == PieceHashes(algorithm="sha1", length_bytes=1024, digests=(SHA1, SHA1))


def test_urls_are_sorted_by_priority_and_those_without_one_come_last_in_their_order() -> None:
    file = one(
        "<url>http://x.test/3</url><url priority='999999'>http://x.test/4</url><url priority='2'> http://x.test/2\n</url>"
        "<url priority='1'>http://x.test/1</url><url priority='1'>http://x.test/1</url><url priority='x'>http://x.test/5</url>"
    )
    assert file.urls == tuple(f"http://x.test/{number}" for number in (1, 2, 3, 4, 5))


def test_hashes_are_sorted_by_strength() -> None:
    hashes = f"<hash type='sha-1'>{SHA1}</hash><hash type='sha-512'>{SHA512.upper()}</hash>"
    assert one(f"{hashes}<hash type='sha-256'>{SHA256}</hash>{URL}").checksums == (
        f"sha512={SHA512}",
        f"sha256={SHA256}",
        f"sha1={SHA1}",
    )


def test_the_strongest_hashes_of_pieces_are_used() -> None:
    weak = f"<pieces length='1024' type='sha-1'><hash>{SHA1}</hash></pieces>"
    strong = f"<pieces length='2048' type='sha-256'><hash>{SHA256}</hash></pieces>"
    for inside in (weak + strong, strong + weak):
        assert one(inside + URL).pieces == PieceHashes(algorithm="sha256", length_bytes=2048, digests=(SHA256,))


def test_elements_that_are_not_known_are_passed_over_with_all_within() -> None:
    file = one(
        f"<other><url>http://evil.test/1</url></other><size>7</size>{URL}<x:size xmlns:x='urn:x'>8</x:size>"
        f"<x:url xmlns:x='urn:x'>http://evil.test/2</x:url><description>&lt;url&gt;</description>"
        f"<hash type='sha-256'>{SHA256}<x:b xmlns:x='urn:x' type='md5'>1</x:b></hash>"
    )
    assert (file.urls, file.size_bytes, file.checksums) == (("http://x.test/f",), 7, (f"sha256={SHA256}",))


def test_a_document_in_utf_16_is_read_like_any_other() -> None:
    text = document(f"<file name='f\u00fc'>{URL}</file>").decode()
    assert parse_metalink(text.encode("utf-16")).files[0].name == "f\u00fc"


# --- what is not used is said ---


def test_hashes_of_an_unknown_kind_are_not_used_and_said() -> None:
    metalink = parse(f"<file name='f'><hash type='md2'>{'0' * 32}</hash><hash>{SHA1}</hash>{URL}</file>")
    assert metalink.files[0].checksums == ()
    assert metalink.notes == ("f: hashes of an unknown kind are not used: md2, ",)


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        (f"<pieces length='1023' type='sha-1'><hash>{SHA1}</hash></pieces>", "shorter than 1024 bytes"),
        (f"<size>1025</size><pieces length='1024' type='sha-1'><hash>{SHA1}</hash></pieces>", "don't fit its size"),
        (
            f"<pieces length='1024' type='sha-1'>{f'<hash>{SHA1}</hash>' * (MAX_PIECES + 1)}</pieces>",
            "(50001) are not used: there are too many",
        ),
        (
            f"<pieces length='1024' type='sha-512'>{f'<hash>{SHA512}</hash>' * 40_000}</pieces>",
            "(40000) are not used: there are too many",
        ),
        (f"<pieces length='1024' type='crc'><hash>{SHA1}</hash></pieces>", "of an unknown kind"),
    ],
)
def test_hashes_of_pieces_that_can_not_be_used_are_said_and_the_whole_hash_stays(pieces: str, why: str) -> None:
    metalink = parse(f"<file name='f'>{pieces}<hash type='sha-256'>{SHA256}</hash>{URL}</file>")
    assert (metalink.files[0].pieces, metalink.files[0].checksums) == (None, (f"sha256={SHA256}",))
    [note] = metalink.notes
    assert why in note


def test_more_urls_than_a_task_may_have_are_cut_and_said() -> None:
    metalink = parse("<file name='f'>" + "".join(f"<url>http://x.test/{n}</url>" for n in range(50)) + "</file>")
    assert metalink.files[0].urls == tuple(f"http://x.test/{n}" for n in range(33))
    assert metalink.notes == ("f: only the first 33 of its 50 URLs are used",)


def test_urls_of_other_schemes_are_never_used() -> None:
    others = "".join(f"<url>{url}</url>" for url in ("file:///etc/passwd", "rsync://x/y", "data:,x", "nonsense", ""))
    metalink = parse(f"<file name='f'>{others}{URL}</file>")
    assert metalink.files[0].urls == ("http://x.test/f",)
    assert "5 of its sources" in metalink.notes[0]
    assert "none of its URLs" in reason(document(f"<file name='f'>{others}</file>"))


# --- names ---


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("plain.iso", "plain.iso"),
        ("../../etc/passwd", "passwd"),
        ("/etc/cron.d/evil", "evil"),
        ("..\\..\\evil.exe", "evil.exe"),
        ("dir/sub/file", "file"),
        (".bashrc", "_bashrc"),
        ("...", None),
        ("..", None),
        (".", None),
        ("dir/", None),
        ("dir/..", None),
        ("a&#x202e;gpj.exe", "a\ufffdgpj.exe"),
        ("a&#10;b", "a\ufffdb"),
        ("x" * 256, None),
        ("\u00fc" * 128, None),
        ("", None),
    ],
)
def test_a_name_is_one_plain_name_or_none(written: str, name: str | None) -> None:
    metalink = parse(f'<file name="{written}">{URL}</file>')
    assert metalink.files[0].name == name
    assert bool(metalink.notes) == (name != written and written != "")


@given(st.text(st.characters(codec="utf-8", exclude_characters="<>&\"'", min_codepoint=32)))
def test_no_name_leads_out_of_the_folder(written: str) -> None:
    try:
        name = one(URL, name=written).name
    except BadMetalink:
        return  # Not all of Unicode is XML.
    assert name is None or not (set("/\\\0") & set(name) or name.startswith(".") or not name)
    assert name is None or len(name.encode()) <= 255


# --- hostile documents ---

BOMB = '<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'
INSIDE = f'<metalink xmlns="{NAMESPACE}"><file name="&c;">{URL}</file></metalink>'


@pytest.mark.parametrize(
    "declaration",
    [
        BOMB,
        f'<!DOCTYPE m [<!ENTITY a "{"x" * 100000}">]>',
        '<!DOCTYPE m [<!ENTITY c SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE m [<!ENTITY c SYSTEM "http://127.0.0.1:1/x">]>',
        '<!DOCTYPE m [<!ENTITY % c SYSTEM "http://127.0.0.1:1/x"> %c;]>',
        '<!DOCTYPE m SYSTEM "http://127.0.0.1:1/x.dtd">',
        '<!DOCTYPE m PUBLIC "-//X//Y" "http://127.0.0.1:1/x.dtd">',
        '<!DOCTYPE m [<!NOTATION n SYSTEM "n"><!ENTITY c SYSTEM "x" NDATA n>]>',
        "<!DOCTYPE m>",
        "<!DOCTYPE m [<!ATTLIST file name CDATA 'x'>]>",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_document_type_is_never_obeyed(declaration: str, encoding: str) -> None:
    assert "it is not trusted" in reason((declaration + INSIDE).encode(encoding))


def test_an_entity_that_nobody_declared_is_no_xml() -> None:
    assert reason(INSIDE.encode()).startswith("not XML: undefined entity")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not XML: no element found"),
        (b"\0" * 100, "not XML"),
        (b"http://x.test/f\n", "not XML"),
        (b"<html><body/></html>", "not a Metalink: its first element is 'html'"),
        (b"<metalink/>", "not a Metalink"),
        (document(namespace="urn:other"), "not a Metalink"),
        (f'<x:file xmlns:x="{NAMESPACE}"/>'.encode(), "not a Metalink: its first element is 'file'"),
        (document(), "it describes no file"),
        (document(f"<files><file name='f'>{URL}</file></files>"), "it describes no file"),
        (document("<file name='f'/>"), "f: none of its URLs is one"),
        (document("<file>" + URL)[:-11], "not XML"),
        (document(f"<file name='f'>{URL}<size>-1</size></file>"), "f: not a size: '-1'"),
        (document(f"<file name='f'>{URL}<size>{'9' * 4000}</size></file>"), "f: not a size"),
        (document(f"<file name='f'>{URL}<size>\u0661</size></file>"), "f: not a size"),
        (document(f"<file name='f'>{URL}<hash type='sha-256'>abc</hash></file>"), "f: a sha256 checksum has 64"),
        (
            document(
                f"<file name='f'>{URL}<hash type='md5'>{'0' * 32}</hash><hash type='md5'>{'1' * 32}</hash></file>"
            ),
            "f: it has two different md5 hashes",
        ),
        (document(f"<file name='f'>{URL}<pieces length='1024' type='md5'/></file>"), "lack a length, or are none"),
        (
            document(f"<file name='f'>{URL}<pieces type='sha-1'><hash>{SHA1}</hash></pieces></file>"),
            "lack a length, or are none",
        ),
        (
            document(f"<file name='f'>{URL}<pieces length='1024' type='sha-1'><hash>x</hash></pieces></file>"),
            "f: pieces: a sha1 checksum",
        ),
        (b'<?xml version="1.0" encoding="rot13"?><metalink/>', "unknown encoding"),
        (b'<?xml version="1.0" encoding="utf-7"?><metalink/>', ""),
        (b'<?xml version="1.0" encoding="../../x"?><metalink/>', ""),
        (b'<?xml version="1.0" encoding="idna"?><metalink/>', ""),
        (b"<a>" * 1_000_000, "not a Metalink"),
        (document("<a>" * 1_000_000), "it nests deeper than"),
        (document(f"<file name='f'>{URL}</file>" * (MAX_FILES + 1)), "it has over 1000 files"),
        (document("<file name='f'>" + URL * (MAX_URLS + 1) + "</file>"), "it has over 20000 URLs"),
        (b" " * (MAX_METALINK_BYTES + 1), "it is over 8388608 bytes long"),
    ],
)
def test_what_is_no_proper_metalink_is_refused_with_a_reason(content: bytes, words: str) -> None:
    assert words in reason(content)


def test_a_flood_of_everything_within_the_bounds_is_read_once() -> None:
    flood = "<hash type='sha-1'>" + "x" * 1000 + "</hash>"
    assert "a sha1 checksum" in reason(document("<file name='f'>" + URL + flood * 7000 + "</file>"))
    attributes = " ".join(f"a{number}=''" for number in range(100_000))
    assert parse(f"<file name='f' {attributes}>{URL}</file>").files[0].name == "f"
    assert one(URL + "<description>" + "&amp;" * 1_000_000 + "</description>").urls == ("http://x.test/f",)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_a_reason(content: bytes) -> None:
    assert reason(content)


@given(st.binary(max_size=40), st.integers(0, 200))
def test_damage_is_understood_or_refused_and_nothing_else(damage: bytes, position: int) -> None:
    whole = document(f"<file name='f'><size>5</size><hash type='sha-256'>{SHA256}</hash>{URL}</file>")
    with contextlib.suppress(BadMetalink):
        parse_metalink(whole[:position] + damage + whole[position:])
