"""What a Metalink file asks for: where each file of a set is to be had, its size, and what it must hash to.

Runs as: the caller.  Talks to: nobody; no I/O.
Invariants: a name never leads out of the folder and never starts with a dot; a hash is never dropped in silence.
Source: RFC 5854.
Known limits: torrents (`metaurl`), signatures, languages and locations are passed over.
"""

from __future__ import annotations

from autodl_lib.cli.metalink_reader import BadMetalink, WrittenFile, WrittenPieces, number, read_document
from autodl_lib.cli.text import clean
from autodl_lib.contract.checksums import Checksum, find_algorithm, parse_checksum, strength
from autodl_lib.contract.errors import BadUrl, InvalidParams
from autodl_lib.contract.light_dataclass import dataclass
from autodl_lib.contract.transfer_options import MAX_MIRRORS, MAX_PIECES, PieceHashes
from autodl_lib.contract.urls import check_url

_MIN_PIECE_BYTES = 1024
_MAX_PIECES_LENGTH = 3 * 1024 * 1024
"""All digits of the hashes of a file's pieces; a request must have room for more than them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetalinkFile:
    """One file that a Metalink describes; `urls` has the preferred one first, and at least one."""

    name: str | None
    urls: tuple[str, ...]
    size_bytes: int | None
    checksums: tuple[str, ...]
    pieces: PieceHashes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metalink:
    """What a Metalink says, and what of it is not used, in sentences for people."""

    files: tuple[MetalinkFile, ...]
    notes: tuple[str, ...]


def parse_metalink(content: bytes) -> Metalink:
    """Read a Metalink document.

    Raises: BadMetalink.
    """
    notes: list[str] = []
    files = tuple(_Interpreter(written, notes).file() for written in read_document(content))
    return Metalink(files=files, notes=tuple(notes))


class _Interpreter:
    """Makes of one file as it is written what can be asked for."""

    def __init__(self, written: WrittenFile, notes: list[str]) -> None:
        self._written = written
        self._notes = notes
        self._shown = clean(written.name[:200]) or "a file without a name"

    def file(self) -> MetalinkFile:
        """Return the file.

        Raises: BadMetalink.
        """
        size_bytes = self._size()
        return MetalinkFile(
            name=self._name(),
            urls=self._urls(),
            size_bytes=size_bytes,
            checksums=self._checksums(),
            pieces=self._pieces(size_bytes),
        )

    def _note(self, text: str) -> None:
        self._notes.append(f"{self._shown}: {text}")

    def _name(self) -> str | None:
        """Source: RFC 5854, section 4.1.2.1: a name that leads elsewhere must not be obeyed."""
        written = self._written.name
        if not written:
            return None
        name = clean(written.replace("\\", "/").rpartition("/")[2]).strip(" ").rstrip(" .")
        body = name.lstrip(".")
        name = "_" * (len(name) - len(body)) + body
        if not body or len(name.encode()) > 255:
            self._note("its name can't be used; the URL names it")
            return None
        if name != written:
            self._note(f"it is saved as {name}")
        return name

    def _size(self) -> int | None:
        text = self._written.size
        if not text:
            return None
        size_bytes = number(text)
        if size_bytes is None:
            raise BadMetalink(f"{self._shown}: not a size: {clean(text[:40])!r}")
        return size_bytes

    def _urls(self) -> tuple[str, ...]:
        urls: dict[str, None] = {}
        ignored = self._written.ignored_urls
        for _, url in sorted(self._written.urls, key=lambda ranked: ranked[0]):
            try:
                check_url(url)
                urls[url] = None
            except BadUrl:
                ignored += 1
        if not urls:
            raise BadMetalink(f"{self._shown}: none of its URLs is one that autodl downloads")
        if ignored:
            self._note(f"{ignored} of its sources can't be used (torrents, or other schemes)")
        if len(urls) > MAX_MIRRORS + 1:
            self._note(f"only the first {MAX_MIRRORS + 1} of its {len(urls)} URLs are used")
        return tuple(urls)[: MAX_MIRRORS + 1]

    def _checksums(self) -> tuple[str, ...]:
        found: dict[str, Checksum] = {}
        unknown: list[str] = []
        for name, digits in self._written.hashes:
            if find_algorithm(name) is None:
                unknown.append(clean(name[:40]))
                continue
            try:
                checksum = parse_checksum(f"{name}={digits}")
            except InvalidParams as error:
                raise BadMetalink(f"{self._shown}: {error}") from None
            if found.setdefault(checksum.algorithm, checksum) != checksum:
                raise BadMetalink(f"{self._shown}: it has two different {checksum.algorithm} hashes")
        if unknown:
            self._note(f"hashes of an unknown kind are not used: {', '.join(unknown[:5])}")
        return tuple(map(str, sorted(found.values(), key=strength, reverse=True)))[:16]

    def _pieces(self, size_bytes: int | None) -> PieceHashes | None:
        known = [pieces for pieces in self._written.pieces if find_algorithm(pieces.algorithm) is not None]
        if len(known) < len(self._written.pieces):
            self._note("hashes of pieces of an unknown kind are not used")
        readable = [self._read_pieces(pieces) for pieces in known]
        if not readable:
            return None
        pieces = max(readable, key=lambda one: strength(Checksum(algorithm=one.algorithm, hex=one.digests[0])))
        pieces_num = len(pieces.digests)
        reason = None
        if pieces_num > MAX_PIECES or sum(map(len, pieces.digests)) > _MAX_PIECES_LENGTH:
            reason = "there are too many"
        elif pieces.length_bytes < _MIN_PIECE_BYTES:
            reason = f"pieces are shorter than {_MIN_PIECE_BYTES} bytes"
        elif size_bytes is not None and pieces_num != -(-size_bytes // pieces.length_bytes):
            reason = "they don't fit its size"
        if reason is not None:
            self._note(f"its hashes of pieces ({pieces_num}) are not used: {reason}")
            return None
        return pieces

    def _read_pieces(self, pieces: WrittenPieces) -> PieceHashes:
        algorithm, length_bytes = find_algorithm(pieces.algorithm), number(pieces.length)
        if algorithm is None or not length_bytes or not pieces.digests:
            raise BadMetalink(f"{self._shown}: its hashes of pieces lack a length, or are none")
        try:
            digests = tuple(parse_checksum(f"{pieces.algorithm}={digits}").hex for digits in pieces.digests)
        except InvalidParams as error:
            raise BadMetalink(f"{self._shown}: pieces: {error}") from None
        return PieceHashes(algorithm=algorithm, length_bytes=length_bytes, digests=digests)
