"""Reads the XML of a Metalink file into what it says, without a judgement of it.

Runs as: the caller.  Talks to: nobody; no I/O.
Invariants: the document is hostile: one that declares a document type or an entity, nests deeply, or has too many
files or URLs is refused; nothing is ever fetched or opened because it says so.
Source: RFC 5854 (Metalink 4); the Metalink 3.0 specification, second edition, for what old servers have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.parsers import expat

from autodl_lib.cli.text import clean
from autodl_lib.contract.errors import InvalidParams

MAX_METALINK_BYTES = 8 * 1024 * 1024
MAX_FILES = 1000
MAX_URLS = 20_000

_MAX_DEPTH = 32
_LAST = 999_999
_NAMESPACES = {"urn:ietf:params:xml:ns:metalink": 4, "http://www.metalinker.org/": 3}
_CONTAINERS = ("files", "verification", "resources")
"""What Metalink 3 has around the elements that are the same in both."""
_SEPARATOR = " "


class BadMetalink(InvalidParams):
    """A file is no Metalink, or one that must not be trusted."""


def read_document(content: bytes) -> list[WrittenFile]:
    """Return the files that a document describes, at least one.

    Raises: BadMetalink.
    """
    if len(content) > MAX_METALINK_BYTES:
        raise BadMetalink(f"it is over {MAX_METALINK_BYTES} bytes long")
    reader = _Reader()
    try:
        reader.parser.Parse(content, True)
    except expat.ExpatError as error:
        raise BadMetalink(f"not XML: {error}") from None
    except (LookupError, ValueError):
        # What Python says of a declared encoding that it has not, or has and can't use here.
        raise BadMetalink("it is in an unknown encoding: write it in UTF-8") from None
    if not reader.files:
        raise BadMetalink("it describes no file")
    return reader.files


@dataclass(slots=True)
class _Element:
    """An element that has begun and not ended."""

    name: str
    attributes: dict[str, str]
    words: list[str] = field(default_factory=list)


@dataclass(slots=True)
class WrittenPieces:
    """A `pieces` element as it is written."""

    algorithm: str
    length: str
    digests: list[str] = field(default_factory=list)


@dataclass(slots=True)
class WrittenFile:
    """A `file` element as it is written."""

    name: str
    size: str | None = None
    hashes: list[tuple[str, str]] = field(default_factory=list)
    pieces: list[WrittenPieces] = field(default_factory=list)
    urls: list[tuple[int, str]] = field(default_factory=list)
    ignored_urls: int = 0


class _Reader:
    """Collects the elements that matter while expat reads; what it does not know it passes over, with all within."""

    def __init__(self) -> None:
        self.files: list[WrittenFile] = []
        self.parser = expat.ParserCreate(namespace_separator=_SEPARATOR)
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        # An entity needs a document type, and no Metalink needs either: neither bombs nor other files are ever read.
        self.parser.StartDoctypeDeclHandler = _refuse_declaration
        self.parser.EntityDeclHandler = _refuse_declaration
        self.parser.UnparsedEntityDeclHandler = _refuse_declaration
        self.parser.ExternalEntityRefHandler = _refuse_declaration
        self._namespace = ""
        self._open: list[_Element] = []
        self._urls_num = 0

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(_SEPARATOR)
        if len(self._open) == _MAX_DEPTH:
            raise BadMetalink(f"it nests deeper than {_MAX_DEPTH} elements")
        if not self._open:
            if local != "metalink" or namespace not in _NAMESPACES:
                raise BadMetalink(f"not a Metalink: its first element is {clean(local[:80])!r}")
            self._namespace = namespace
        # An element of another namespace is nowhere, and neither is what is in it.
        self._open.append(_Element(name=local if namespace == self._namespace else "?", attributes=attributes))
        match self._place():
            case ["file"]:
                if len(self.files) == MAX_FILES:
                    raise BadMetalink(f"it has over {MAX_FILES} files")
                self.files.append(WrittenFile(name=attributes.get("name", "")))
            case ["file", "pieces"]:
                pieces = WrittenPieces(algorithm=attributes.get("type", ""), length=attributes.get("length", ""))
                self.files[-1].pieces.append(pieces)

    def _text(self, text: str) -> None:
        if self._open:
            self._open[-1].words.append(text)

    def _end(self, _: str) -> None:
        element = self._open[-1]
        text = "".join(element.words).strip()
        match self._place():
            case ["file", "size"]:
                self.files[-1].size = text
            case ["file", "hash"]:
                self.files[-1].hashes.append((element.attributes.get("type", ""), text))
            case ["file", "pieces", "hash"]:
                self.files[-1].pieces[-1].digests.append(text)
            case ["file", "url"]:
                self._add_url(text, element.attributes)
            case ["file", "metaurl"]:
                self.files[-1].ignored_urls += 1
        self._open.pop()

    def _place(self) -> list[str]:
        """Return where in a Metalink 4 this element would be; empty when that is nowhere."""
        path = [element.name for element in self._open[1:]]
        if _NAMESPACES[self._namespace] == 3:
            if path[:1] != ["files"] or path[-1] in _CONTAINERS:
                return []
            path = [step for step in path if step not in _CONTAINERS]
        return path

    def _add_url(self, text: str, attributes: dict[str, str]) -> None:
        self._urls_num += 1
        if self._urls_num > MAX_URLS:
            raise BadMetalink(f"it has over {MAX_URLS} URLs")
        if attributes.get("type") == "bittorrent":
            self.files[-1].ignored_urls += 1
            return
        if _NAMESPACES[self._namespace] == 3:
            rank = -(number(attributes.get("preference", "")) or 0)
        else:
            priority = number(attributes.get("priority", ""))
            rank = _LAST if priority is None else priority
        self.files[-1].urls.append((rank, text))


def _refuse_declaration(*_: object) -> int:
    raise BadMetalink("it declares a document type or an entity, which no Metalink needs; it is not trusted")


def number(text: str) -> int | None:
    """Return a number of up to 15 digits, None where it is something else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 15 else None
