"""What a file must hash to: `ALGO=HEX` as people write it, and lists such as SHA256SUMS.

Runs as: everyone.  Talks to: nobody; no I/O.
Invariants: a list is hostile: reading one takes time in proportion to its length, never raises, and whatever is not
understood is passed over. Two hashes that contradict each other are none.
Known limits: signatures of a list are not verified; keyed or shortened BLAKE2, base64 and `gpg --print-md` are not
understood.
Source: the manuals of GNU coreutils (md5sum), cksum(1) of the BSDs and openssl-dgst(1); RFC 9580, section 7.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence

from autodl_lib.contract.errors import InvalidParams
from autodl_lib.contract.light_dataclass import dataclass
from autodl_lib.contract.urls import SCHEMES

MAX_LIST_BYTES = 4 * 1024 * 1024
XOF_MIN_BYTES = 16
XOF_MAX_BYTES = 256
"""How long a hash of the shake functions may be, which have no length of their own."""

_MAX_SHOWN = 80
_WRITTEN = re.compile(r"([A-Za-z0-9_-]{1,32})[=:](\S*)", re.ASCII)
_BARE_HEX = re.compile(r"(?:[0-9A-Fa-f]{8}){4,16}", re.ASCII)
_LINE = re.compile(r"^(?:- )?([^\r\n]{32,4096})\r?$", re.MULTILINE)
_TAGGED = re.compile(r"\\?([A-Za-z0-9/_-]{2,24}) ?\((.+)\) ?= ?([0-9A-Fa-f]+)", re.ASCII)
_UNTAGGED = re.compile(r"\\?([0-9A-Fa-f]{8,512})(?:( [ *]|[ \t]+)([^ ].*))?", re.ASCII)
_ESCAPE = re.compile(r"\\([\\nr])")
_ESCAPED = {"\\": "\\", "n": "\n", "r": "\r"}
_SIGNED = "-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE = "\n-----BEGIN PGP SIGNATURE-----"
_IN_LIST_NAME = re.compile(
    r"(?<![a-z0-9])(sha3[-_]?\d{3}|sha(?:2[-_])?-?_?\d{1,3}(?:[-_]\d{3})?|md5|b2|blake2[bs]|rmd160|ripemd160|sm3)"
    r"(?:sums?)?(?![a-z0-9])",
    re.ASCII,
)
_BY_HEX_LENGTH = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}
_OTHER_NAMES = {
    "sha": "sha1",
    "sha2224": "sha224",
    "sha2256": "sha256",
    "sha2384": "sha384",
    "sha2512": "sha512",
    "sha2512224": "sha512224",
    "sha2512256": "sha512256",
    "b2": "blake2b",
    "blake2b512": "blake2b",
    "blake2s256": "blake2s",
    "rmd160": "ripemd160",
}
"""What _spelling makes of a name, to what it makes of hashlib's name."""

_BROKEN = ("md5", "sha1", "md5-sha1")
"""Functions for which two files of the same hash can be made; weakest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    """What a file must hash to: hashlib's name of the function, and the hash in lower-case hexadecimal."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        """Return it as `parse_checksum` reads it."""
        return f"{self.algorithm}={self.hex}"


def parse_checksum(text: str) -> Checksum:
    """Return what `ALGO=HEX` says; the algorithm may be spelled as anywhere: sha256, SHA-256, sha3_256.

    Raises: InvalidParams, with a sentence that says what to write.
    """
    match = _WRITTEN.fullmatch(text.strip())
    if match is None:
        raise InvalidParams(_how_to_write(text.strip()))
    name, value = match[1], match[2].lower()
    algorithm = find_algorithm(name)
    if algorithm is None:
        raise InvalidParams(f"unknown checksum algorithm {name!r}: {_nearest(name)}")
    wrong = next((c for c in value if c not in "0123456789abcdef"), None)
    if wrong is not None:
        raise InvalidParams(f"a {algorithm} checksum is written in hexadecimal digits, and {wrong!r} is none")
    if not has_right_length(algorithm, value):
        raise InvalidParams(f"a {algorithm} checksum has {_length_words(algorithm)}, not {len(value)}")
    return Checksum(algorithm=algorithm, hex=value)


def is_list_url(text: str) -> bool:
    """Tell whether a checksum is given as the URL of a list."""
    return text.partition("://")[0].lower() in SCHEMES and "://" in text


def is_list_path(text: str) -> bool:
    """Tell whether a checksum is given as the path of a list: it is no URL, and not written like `ALGO=HEX`."""
    return not (is_list_url(text) or _WRITTEN.fullmatch(text) or _BARE_HEX.fullmatch(text))


def find_algorithm(name: str) -> str | None:
    """Return hashlib's name of an algorithm, however it is spelled; None when this machine has it not."""
    key = _spelling(name)
    found = _algorithms().get(_OTHER_NAMES.get(key, key))
    return None if found is None else found[0]


def has_right_length(algorithm: str, digits: str) -> bool:
    """Tell whether a hash of this algorithm, one of find_algorithm's, may have so many hexadecimal digits."""
    size_bytes = _algorithms()[_spelling(algorithm)][1]
    if size_bytes == 0:
        return len(digits) % 2 == 0 and XOF_MIN_BYTES * 2 <= len(digits) <= XOF_MAX_BYTES * 2
    return len(digits) == size_bytes * 2


def strength(checksum: Checksum) -> int:
    """Return a number that is higher the harder it is to make another file of the same checksum."""
    if checksum.algorithm in _BROKEN:
        return _BROKEN.index(checksum.algorithm)
    return len(_BROKEN) + len(checksum.hex)


def find_in_list(content: str, names: Sequence[str], list_name: str) -> Checksum | None:
    """Return the strongest checksum that a list has of the file that is called one of `names`, the likeliest first.

    A line fits by its whole name, else by the last component of it; a list that is nothing but one hash fits every
    name. `list_name` (SHA256SUMS, file.iso.sha512) tells the algorithm of lines that don't. None when no line fits,
    and when lines that fit have different hashes of one algorithm: the list contradicts itself then.
    """
    wanted = frozenset(names)
    nameless: list[Checksum] = []
    exact: dict[str, list[Checksum]] = {}
    by_component: dict[str, list[Checksum]] = {}
    others = 0
    for name, checksum in _entries(content, _algorithm_of_list(list_name)):
        component = name.rpartition("/")[2]
        if not name:
            nameless.append(checksum)
        elif name in wanted:
            exact.setdefault(name, []).append(checksum)
        elif component in wanted:
            by_component.setdefault(component, []).append(checksum)
        else:
            others += 1
    for found in (exact, by_component):
        for name in names:
            if name in found:
                return _strongest(found[name])
    return None if others else _strongest(nameless)


def _entries(content: str, algorithm: str | None) -> Iterator[tuple[str, Checksum]]:
    """Yield name and checksum of every line that is understood; the name is empty when the line has none."""
    for line in _LINE.finditer(_without_signature(content.removeprefix("\ufeff"))):
        entry = _entry(line[1].rstrip(" \t\r"), algorithm)
        if entry is not None:
            yield entry


def _without_signature(content: str) -> str:
    """Return what a clear-signed text says, without what is outside of the signed part."""
    _, is_signed, rest = content.partition(_SIGNED)
    return rest.partition(_SIGNATURE)[0] if is_signed else content


def _entry(line: str, algorithm: str | None) -> tuple[str, Checksum] | None:
    tagged = _TAGGED.fullmatch(line)
    if tagged is not None:
        found, name, digits = find_algorithm(tagged[1]), tagged[2], tagged[3]
    else:
        untagged = _UNTAGGED.fullmatch(line)
        if untagged is None:
            return None
        digits, name = untagged[1], untagged[3] or ""
        fits = algorithm is not None and has_right_length(algorithm, digits)
        found = algorithm if fits else _BY_HEX_LENGTH.get(len(digits))
    if found is None or not has_right_length(found, digits):
        return None
    if line.startswith("\\"):
        name = _ESCAPE.sub(lambda match: _ESCAPED[match[1]], name)
    name = "" if name == "-" else name.removeprefix("./")
    return name, Checksum(algorithm=found, hex=digits.lower())


def _algorithm_of_list(list_name: str) -> str | None:
    """Return the algorithm that a list's name tells; the last one counts, as in md5-tool.tar.gz.sha256."""
    base = list_name[-4096:].partition("?")[0].rpartition("/")[2].lower()
    found = [algorithm for word in _IN_LIST_NAME.findall(base) if (algorithm := find_algorithm(word))]
    return found[-1] if found else None


def _strongest(found: Iterable[Checksum]) -> Checksum | None:
    by_algorithm: dict[str, Checksum] = {}
    for checksum in found:
        if by_algorithm.setdefault(checksum.algorithm, checksum) != checksum:
            return None
    return max(by_algorithm.values(), key=strength, default=None)


@functools.cache
def _algorithms() -> dict[str, tuple[str, int]]:
    """Return hashlib's name and the hash's length in bytes (0: any) for each spelling; fewer on some machines."""
    import hashlib  # not at the top: most commands check no checksum, and start faster without

    sizes: dict[str, tuple[str, int]] = {}
    for name in sorted(hashlib.algorithms_available, key=lambda name: name in hashlib.algorithms_guaranteed):
        try:
            sizes[_spelling(name)] = (name, hashlib.new(name, usedforsecurity=False).digest_size)
        except ValueError:  # OpenSSL knows the name, and its configuration forbids it
            continue
    return sizes


def _spelling(name: str) -> str:
    return "".join([c for c in name if c not in "-_/"]).lower()


def _how_to_write(text: str) -> str:
    shown = text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."
    algorithm = _BY_HEX_LENGTH.get(len(text)) if _BARE_HEX.fullmatch(text) else None
    if algorithm is not None:
        return f"name the algorithm of the checksum, such as {algorithm}={shown}"
    return f"write the checksum as ALGO=HEX, such as sha256=9f86d081..., or name the URL or file of a list: {shown!r}"


def _nearest(name: str) -> str:
    import difflib

    names = {_spelling(known): known for known, _ in _algorithms().values()}
    near = [names[key] for key in difflib.get_close_matches(_spelling(name), names, n=3)]
    return f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(sorted(names.values()))}"


def _length_words(algorithm: str) -> str:
    size_bytes = _algorithms()[_spelling(algorithm)][1]
    if size_bytes == 0:
        return f"{XOF_MIN_BYTES * 2} to {XOF_MAX_BYTES * 2} hexadecimal digits, an even number of them"
    return f"{size_bytes * 2} hexadecimal digits"
