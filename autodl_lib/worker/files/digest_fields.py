"""What a response's header fields promise of the file's bytes.

Runs as: the task's owner.  Talks to: nobody; no I/O.
Invariants: fields are hostile; what is malformed or unknown is passed over. Fields that contradict each other
promise nothing. What comes back holds for the bytes as they were sent, content coding and all, which is how they
are stored: that is what all of these fields are defined for.
Known limits: a promise of the server is no proof of where the file comes from, only of its way here.
Source: RFC 9530 (Repr-Digest, Content-Digest), RFC 3230 and RFC 5843 (Digest), RFC 1864 (Content-MD5).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping

from autodl_lib.contract.checksums import Checksum, find_algorithm, has_right_length, strength

DIGEST_FIELDS = ("repr-digest", "content-digest", "digest", "content-md5")

_MAX_LENGTH = 4096
_ALGORITHMS = {"sha-512": "sha512", "sha-256": "sha256", "sha": "sha1", "md5": "md5"}
"""The cryptographic ones of the IANA registry; sums and CRCs are passed over."""

_DICTIONARY_MEMBER = re.compile(r"([a-z*][a-z0-9_.*-]{0,31})=:([A-Za-z0-9+/=]*):(?:;.*)?")


def expected_digests(fields: Mapping[str, str], *, whole: bool, encoded: bool) -> tuple[Checksum, ...]:
    """Return the strongest checksum that a response promises of the file, or nothing.

    `fields` have lower-case names; `whole`: the message carries the whole file (a 200), without which what it says
    of its own content says nothing of the file; `encoded`: it has a Content-Encoding, after which only the fields of
    RFC 9530 are believed: programs that send the older ones often know the file before a proxy packs it.
    """
    if fields.keys().isdisjoint(DIGEST_FIELDS):
        return ()
    found = list(_of_dictionary(fields.get("repr-digest", "")))
    if whole:
        found += _of_dictionary(fields.get("content-digest", ""))
    if not encoded:
        found += _of_instance(fields.get("digest", ""))
    if whole and not encoded:
        found += _decoded("md5", fields.get("content-md5", ""))
    agreed = [checksum for checksum in found if _is_undisputed(checksum, found)]
    return (max(agreed, key=strength),) if agreed else ()


def _is_undisputed(checksum: Checksum, found: list[Checksum]) -> bool:
    return all(other == checksum for other in found if other.algorithm == checksum.algorithm)


def _of_dictionary(value: str) -> Iterator[Checksum]:
    """Yield what a structured field says: `sha-256=:BASE64:, ...`. Source: RFC 8941, sections 3.2 and 3.3.5."""
    for member in _members(value):
        match = _DICTIONARY_MEMBER.fullmatch(member)
        if match is not None:
            yield from _decoded(match[1], match[2])


def _of_instance(value: str) -> Iterator[Checksum]:
    """Yield what a Digest field says: `SHA-256=BASE64,MD5=...`."""
    for member in _members(value):
        name, _, digest = member.partition("=")
        yield from _decoded(name.lower(), digest)


def _members(value: str) -> list[str]:
    return [member.strip(" \t") for member in value.split(",")] if len(value) <= _MAX_LENGTH else []


def _decoded(name: str, text: str) -> list[Checksum]:
    """Return the checksum that base64 text stands for, alone in a list; padding may be missing (RFC 8941, 4.2.7)."""
    algorithm = find_algorithm(_ALGORITHMS.get(name, ""))
    bare = text.strip(" \t").rstrip("=")
    if algorithm is None or not bare:
        return []
    try:
        digits = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True).hex()
    except (binascii.Error, ValueError):
        return []
    return [Checksum(algorithm=algorithm, hex=digits)] if has_right_length(algorithm, digits) else []
