"""Checksums: every way that people and programs write them, and lists that are wrong, hostile or contradictory."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_lib.contract.checksums import (
    MAX_LIST_BYTES,
    Checksum,
    find_in_list,
    is_list_path,
    is_list_url,
    parse_checksum,
    strength,
)
from autodl_lib.contract.errors import InvalidParams

CONTENT = b"the content of a file\n"
NAME = "tool-1.0.iso"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SHA512 = hashlib.sha512(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
OTHER = hashlib.sha256(b"another file").hexdigest()
FIXED_LENGTH = sorted(name for name in hashlib.algorithms_guaranteed if not name.startswith("shake"))

names = st.text(st.characters(codec="utf-8", exclude_characters="\0/\n\r"), min_size=1, max_size=60)


def sha256(digits: str = SHA256) -> Checksum:
    """Make a checksum."""
    return Checksum(algorithm="sha256", hex=digits)


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        (f"sha256={SHA256}", "sha256"),
        (f"SHA-256:{SHA256.upper()}", "sha256"),
        (f"sha_256={SHA256}", "sha256"),
        (f"SHA2-256={SHA256}", "sha256"),
        (f" sha256={SHA256}\n", "sha256"),
        (f"md5={MD5}", "md5"),
        (f"sha={SHA256[:40]}", "sha1"),
        (f"sha3-256={SHA256}", "sha3_256"),
        (f"SHA2-512_256={SHA256}", "sha512_256"),
        (f"blake2b={SHA512}", "blake2b"),
        (f"BLAKE2s256={SHA256}", "blake2s"),
        (f"shake_128={SHA256[:32]}", "shake_128"),
        (f"SHAKE-256={SHA512}", "shake_256"),
    ],
)
def test_a_checksum_may_be_spelled_as_anywhere(text: str, algorithm: str) -> None:
    digits = re.split("[=:]", text.strip())[1].lower()
    assert parse_checksum(text) == Checksum(algorithm=algorithm, hex=digits)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"sha265={SHA256}", "did you mean sha256"),
        (f"nothing={SHA256}", "use one of blake2b, "),
        ("sha256=", "has 64 hexadecimal digits, not 0"),
        (f"sha256={SHA256}0", "has 64 hexadecimal digits, not 65"),
        (f"md5={SHA256}", "has 32 hexadecimal digits, not 64"),
        (f"sha256={SHA256[1:]}g", "'g' is none"),
        (f"sha256={SHA256[1:]}\u0661", "'\u0661' is none"),
        ("shake_128=0011", "has 32 to 512 hexadecimal digits"),
        ("shake_128=" + "0" * 33, "an even number"),
        (SHA256, "name the algorithm of the checksum, such as sha256="),
        ("", "write the checksum as ALGO=HEX"),
        ("SHA256SUMS", "or name the URL or file of a list"),
        ("x" * 5000, "..."),
    ],
)
def test_a_wrong_checksum_is_refused_with_advice(text: str, words: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        parse_checksum(text)
    assert words in str(refused.value)
    assert len(str(refused.value)) < 400


@given(st.text(max_size=100) | st.from_regex(r"[a-z0-9-]{1,9}[=:][0-9a-fx]{0,70}", fullmatch=True))
def test_any_text_is_a_checksum_or_refused(text: str) -> None:
    try:
        checksum = parse_checksum(text)
    except InvalidParams:
        return
    assert parse_checksum(str(checksum)) == checksum


@given(st.sampled_from(FIXED_LENGTH), st.binary(max_size=50))
def test_a_checksum_is_read_as_it_is_shown(algorithm: str, content: bytes) -> None:
    checksum = Checksum(algorithm=algorithm, hex=hashlib.new(algorithm, content).hexdigest())
    assert parse_checksum(str(checksum)) == checksum
    assert parse_checksum(str(checksum).upper().replace("=", ":").replace("_", "-")) == checksum


@pytest.mark.parametrize(
    ("text", "is_url", "is_path"),
    [
        ("https://h/SHA256SUMS", True, False),
        ("FTP://h/SHA256SUMS", True, False),
        ("http://h/x?sha256=1", True, False),
        ("file:///etc/passwd", False, False),
        ("/home/a/SHA256SUMS", False, True),
        ("/home/a=b/SHA256SUMS", False, True),
        ("~/md5sum.txt", False, True),
        ("SHA256SUMS", False, True),
        ("./a:b", False, True),
        (f"sha256={SHA256}", False, False),
        ("sha265:00", False, False),
        (SHA256, False, False),
    ],
)
def test_a_list_is_told_from_a_checksum(text: str, is_url: bool, is_path: bool) -> None:
    assert is_list_url(text) is is_url
    assert is_list_path(text) is is_path


@pytest.mark.parametrize(
    "line",
    [
        f"{SHA256}  {NAME}",
        f"{SHA256} *{NAME}",
        f"{SHA256} {NAME}",
        f"{SHA256}\t{NAME}",
        f"{SHA256}      {NAME}",
        f"{SHA256.upper()}  {NAME}",
        f"{SHA256}  ./{NAME}",
        f"{SHA256}  iso/amd64/{NAME}",
        f"\\{SHA256}  {NAME}",
        f"SHA256 ({NAME}) = {SHA256}",
        f"SHA256 (iso/{NAME}) = {SHA256}",
        f"SHA256({NAME})= {SHA256}",
        f"SHA2-256({NAME})= {SHA256}",
        SHA256,
        f"{SHA256}  -",
        f"{SHA256} *-",
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "  \r\n"])
def test_a_list_may_have_any_usual_form(line: str, end: str) -> None:
    assert find_in_list(line + end, [NAME], "list.txt") == sha256()
    assert find_in_list(f"\ufeff{line}{end}", [NAME], "list.txt") == sha256()
    assert find_in_list(f"# a comment\n; another\n\n{line}{end}", [NAME], "list.txt") == sha256()


@given(names.filter(lambda name: name == name.strip() and name != "-"))
def test_any_name_is_found_as_coreutils_writes_it(name: str) -> None:
    mark, escaped = ("\\", name.replace("\\", "\\\\")) if "\\" in name else ("", name)
    assert find_in_list(f"{OTHER}  x{name}\n{mark}{SHA256} *{escaped}\n", [name], "SHA256SUMS") == sha256()


@pytest.mark.parametrize(
    "name", ["plain", "with space", "new\nline", "back\\slash", "cr\rname", "(x) = y", "*star", "日本"]
)
@pytest.mark.parametrize("command", [["sha256sum"], ["sha256sum", "-b"], ["sha256sum", "--tag"], ["openssl", "sha256"]])
def test_what_programs_really_write_is_read(name: str, command: list[str], tmp_path: Path) -> None:
    if command[0] == "openssl" and not name.isprintable():
        name = "openssl writes such names as they are"
    (tmp_path / name).write_bytes(CONTENT)
    written = subprocess.run([*command, name], cwd=tmp_path, capture_output=True, check=True).stdout.decode()
    assert find_in_list(written, [name], "list") == sha256()


def test_only_the_signed_part_of_a_signed_list_counts() -> None:
    signed = (
        f"{OTHER}  {NAME}\n-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{SHA256}  {NAME}\n"
        f"- -----a line of dashes\n-----BEGIN PGP SIGNATURE-----\n\n{OTHER}  {NAME}\n-----END PGP SIGNATURE-----\n"
    )
    assert find_in_list(signed, [NAME], "SHA256SUMS.asc") == sha256()


def test_the_whole_name_wins_over_the_last_component() -> None:
    lines = f"{OTHER}  old/{NAME}\n{SHA256}  {NAME}\n"
    assert find_in_list(lines, [NAME], "SHA256SUMS") == sha256()


def test_the_likelier_name_wins() -> None:
    lines = f"{OTHER}  second\n{SHA256}  dir/first\n"
    assert find_in_list(lines, ["second", "first"], "SHA256SUMS") == sha256(OTHER)
    assert find_in_list(f"{OTHER}  second\n{SHA256}  first\n", ["first", "second"], "SHA256SUMS") == sha256()


@pytest.mark.parametrize(
    "lines",
    [
        "",
        f"{SHA256}  another.iso\n",
        f"{SHA256}  {NAME}.sig\n",
        f"{SHA256}  {NAME}\n{OTHER}  {NAME}\n",
        f"{SHA256}  a/{NAME}\n{OTHER}  b/{NAME}\n",
        f"SHA512 ({NAME}) = {SHA512}\nSHA256 ({NAME}) = {SHA256}\nSHA256 ({NAME}) = {OTHER}\n",
        f"{SHA256}\n{OTHER}\n",
        f"{SHA256}\n{OTHER}  another.iso\n",
        f"SHA256 ({NAME}) = {SHA512}\n",
        f"CRC32 ({NAME}) = {SHA256[:8]}\n",
        f"{SHA256[:60]}  {NAME}\n",
        f"<html>{SHA256}  {NAME}</html>\n",
        f"{SHA256}  {'x/' * 3000}{NAME}\n",
    ],
)
def test_a_list_that_says_nothing_clear_says_nothing(lines: str) -> None:
    assert find_in_list(lines, [NAME], "SHA256SUMS") is None


def test_the_same_hash_twice_is_no_contradiction() -> None:
    assert find_in_list(f"{SHA256}  {NAME}\n{SHA256} *./{NAME}\n", [NAME], "SHA256SUMS") == sha256()


def test_the_strongest_algorithm_of_a_list_is_taken() -> None:
    lines = f"MD5 ({NAME}) = {MD5}\nSHA512 ({NAME}) = {SHA512}\nSHA256 ({NAME}) = {SHA256}\n"
    assert find_in_list(lines, [NAME], "CHECKSUMS") == Checksum(algorithm="sha512", hex=SHA512)
    lines = f"BLAKE2b ({NAME}) = {SHA512}\nSHA256 ({NAME}) = {SHA256}\n"
    assert find_in_list(lines, [NAME], "CHECKSUMS") == Checksum(algorithm="blake2b", hex=SHA512)
    assert strength(Checksum(algorithm="sha1", hex="0" * 40)) < strength(Checksum(algorithm="sha224", hex="0" * 56))


@pytest.mark.parametrize(
    ("list_name", "digits", "algorithm"),
    [
        ("SHA256SUMS", SHA256, "sha256"),
        ("sha3-256sums.txt", SHA256, "sha3_256"),
        ("B2SUMS", SHA512, "blake2b"),
        ("x.blake2s", SHA256, "blake2s"),
        ("http://h/md5-1.0.tar.gz.sha3_256?token=md5", SHA256, "sha3_256"),
        ("SHA512SUMS", SHA256, "sha256"),
        ("SHASUMS", SHA512, "sha512"),
        ("checksums", MD5, "md5"),
        ("x.sha512", SHA512, "sha512"),
        ("sha512-256.txt", SHA256, "sha512_256"),
        ("x.rmd160", SHA256[:40], "ripemd160" if "ripemd160" in hashlib.algorithms_available else "sha1"),
    ],
)
def test_the_lists_name_tells_the_algorithm_where_the_length_fits(list_name: str, digits: str, algorithm: str) -> None:
    assert find_in_list(f"{digits}  {NAME}\n", [NAME], list_name) == Checksum(algorithm=algorithm, hex=digits)


@given(st.text(max_size=300), st.lists(names, max_size=3), st.text(max_size=40))
def test_no_list_is_an_error(content: str, wanted: list[str], list_name: str) -> None:
    find_in_list(content, wanted, list_name)


pieces = st.sampled_from(
    [SHA256, OTHER, MD5, "  ", " *", "SHA256 (", ") = ", NAME, "./", "\\", "\n", "\r\n", "-", "a/"]
)


@given(st.lists(pieces, max_size=30))
def test_what_is_found_in_a_list_stands_in_it(content: list[str]) -> None:
    found = find_in_list("".join(content), [NAME], "SHA256SUMS")
    assert found is None or found.hex in "".join(content)


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a" * 4096 + "\n",
        "\n",
        "\r",
        SHA256 + "\n",
        SHA256 + " " * 3000 + "\n",
        "SHA256 (" + ")=a" * 1000 + "\n",
        "(",
    ],
)
def test_the_longest_hostile_list_is_read_to_its_end(unit: str) -> None:
    content = unit * (MAX_LIST_BYTES // len(unit) - 1)
    assert find_in_list(f"{content}\nSHA512 ({NAME}) = {SHA512}", [NAME], "SHA256SUMS") is not None
