"""What header fields promise of a file: the right ones, in the right cases, and never anything of a malformed one."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_lib.contract.checksums import Checksum, has_right_length
from autodl_lib.worker.files.digest_fields import DIGEST_FIELDS, expected_digests

CONTENT = b'{"hello": "world"}\n'


def in_base64(algorithm: str, content: bytes = CONTENT) -> str:
    """Return a hash as header fields have it."""
    return base64.b64encode(hashlib.new(algorithm, content).digest()).decode()


def checksum(algorithm: str, content: bytes = CONTENT) -> Checksum:
    """Make a checksum."""
    return Checksum(algorithm=algorithm, hex=hashlib.new(algorithm, content).hexdigest())


SHA256 = in_base64("sha256")
SHA512 = in_base64("sha512")
MD5 = in_base64("md5")
OTHER = in_base64("sha256", b"another")


@pytest.mark.parametrize(
    ("field", "value", "algorithm"),
    [
        ("repr-digest", f"sha-256=:{SHA256}:", "sha256"),
        ("repr-digest", f"sha-256=:{SHA256}:, sha-512=:{SHA512}:", "sha512"),
        ("repr-digest", f"sha-512=:{SHA512}:,\tmd5=:{MD5}:", "sha512"),
        ("repr-digest", f"unknown=:AAAA:, sha-256=:{SHA256}:;a=1", "sha256"),
        ("repr-digest", f"sha-256=:{SHA256.rstrip('=')}:", "sha256"),
        ("repr-digest", f"md5=:{MD5}:, crc32c=:AAAAAA==:", "md5"),
        ("repr-digest", f"sha=:{in_base64('sha1')}:", "sha1"),
        ("content-digest", f"sha-256=:{SHA256}:", "sha256"),
        ("digest", f"SHA-256={SHA256}", "sha256"),
        ("digest", f"sha-256={SHA256},MD5={MD5},unixsum=30637", "sha256"),
        ("digest", f"UNIXsum=1, SHA={in_base64('sha1')}", "sha1"),
        ("content-md5", MD5, "md5"),
    ],
)
def test_a_whole_file_is_promised_by_any_field(field: str, value: str, algorithm: str) -> None:
    assert expected_digests({field: value}, whole=True, encoded=False) == (checksum(algorithm),)


def test_the_example_of_the_rfc_is_understood() -> None:
    value = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
    assert expected_digests({"repr-digest": value}, whole=True, encoded=False) == (checksum("sha256"),)


FIELDS = {
    "repr-digest": f"sha-512=:{SHA512}:",
    "content-digest": f"sha-256=:{SHA256}:",
    "digest": f"SHA={in_base64('sha1')}",
    "content-md5": MD5,
}


@pytest.mark.parametrize(
    ("whole", "encoded", "believed"),
    [
        (True, False, set(DIGEST_FIELDS)),
        (False, False, {"repr-digest", "digest"}),
        (True, True, {"repr-digest", "content-digest"}),
        (False, True, {"repr-digest"}),
    ],
)
def test_a_field_counts_only_where_it_speaks_of_stored_bytes(whole: bool, encoded: bool, believed: set[str]) -> None:
    assert FIELDS.keys() == set(DIGEST_FIELDS)
    for field, value in FIELDS.items():
        assert bool(expected_digests({field: value}, whole=whole, encoded=encoded)) == (field in believed)


def test_the_strongest_of_all_fields_is_taken() -> None:
    assert expected_digests(FIELDS, whole=True, encoded=False) == (checksum("sha512"),)


def test_fields_that_contradict_each_other_promise_nothing() -> None:
    fields = {"repr-digest": f"sha-256=:{SHA256}:", "digest": f"SHA-256={OTHER}"}
    assert expected_digests(fields, whole=True, encoded=False) == ()
    fields["content-md5"] = MD5
    assert expected_digests(fields, whole=True, encoded=False) == (checksum("md5"),)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("repr-digest", ""),
        ("repr-digest", f"sha-256={SHA256}"),
        ("repr-digest", f"SHA-256=:{SHA256}:"),
        ("repr-digest", f"sha-256=:{MD5}:"),
        ("repr-digest", "sha-256=::"),
        ("repr-digest", "sha-256=:!!!!:"),
        ("repr-digest", f"sha-256=:{SHA256[:-3]}:"),
        ("repr-digest", f"sha3-256=:{SHA256}:"),
        ("repr-digest", f"sha-256=:{SHA256}:" + "," * 5000),
        ("digest", "SHA-256"),
        ("digest", f"SHA-256=:{SHA256}:"),
        ("digest", f"SHA-256={hashlib.sha256(CONTENT).hexdigest()}"),
        ("content-md5", hashlib.md5(CONTENT).hexdigest()),
        ("content-md5", f"md5={MD5}"),
        ("content-md5", "\u0661" * 24),
    ],
)
def test_a_malformed_field_promises_nothing(field: str, value: str) -> None:
    assert expected_digests({field: value}, whole=True, encoded=False) == ()


@given(st.dictionaries(st.sampled_from(DIGEST_FIELDS), st.text(max_size=200)), st.booleans(), st.booleans())
def test_no_field_is_an_error(fields: dict[str, str], whole: bool, encoded: bool) -> None:
    for found in expected_digests(fields, whole=whole, encoded=encoded):
        assert has_right_length(found.algorithm, found.hex)


@given(st.binary(max_size=100), st.sampled_from(["sha-256", "sha-512"]))
def test_a_promise_is_read_as_it_was_made(content: bytes, name: str) -> None:
    algorithm = name.replace("-", "")
    value = f"{name}=:{in_base64(algorithm, content)}:"
    assert expected_digests({"repr-digest": value}, whole=False, encoded=False) == (checksum(algorithm, content),)
