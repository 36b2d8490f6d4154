"""What a disk may hold after a power cut: the files and folders of a recorded run, with what was not synced in doubt.

A file's writes and a folder's names are operations. fsync of a file makes its bytes safe, fsync of a folder its names;
nothing else is safe. Of what is in doubt, any part may be on the disk: nothing, all, some, and of a write any sectors.
Source: Pillai et al., All File Systems Are Not Created Equal (OSDI 2014); fsync(2).
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from support.strace_reader import Call

SECTOR_BYTES = 512
_LONG_AGO = -2
_DELETED = " (deleted)"
_UNNAMED = re.compile(r"/#\d+$")
_DESCRIPTOR = re.compile(r"/proc/self/fd/(\d+)")


@dataclass(slots=True, eq=False)
class Write:
    """Bytes at an offset, or (`data` None) a new length."""

    at: int
    offset: int
    data: bytes | None


@dataclass(slots=True, eq=False)
class Name:
    """Names that a folder gets (`node`) and loses (None), all at once."""

    at: int
    changes: tuple[tuple[str, File | Folder | None], ...]


@dataclass(slots=True, eq=False)
class File:
    """A file; `synced` has, for each sync, the line where it began and the line where it ended."""

    first_path: str
    writes: list[Write] = field(default_factory=list)
    synced: list[tuple[int, int]] = field(default_factory=list)

    def length(self) -> int:
        """Return how long it is now."""
        length = 0
        for write in self.writes:
            length = write.offset if write.data is None else max(length, write.offset + len(write.data))
        return length


@dataclass(slots=True, eq=False)
class Folder:
    """A folder."""

    names: list[Name] = field(default_factory=list)
    synced: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Tree:
    """What is found after the cut: bytes of files, and which file it is, by path from the root of the record."""

    files: dict[str, bytes]
    nodes: dict[str, File]


Doubt = Callable[[File | Folder, list[Write] | list[Name]], Iterable[Write | Name]]
"""What of the operations in doubt, in their order, has reached the disk."""


class Disk:
    """The record of one run, below one folder."""

    def __init__(self, root: str, existing: Iterable[str] = ()) -> None:
        """`existing`: folders below the root that were there and safe before, parents first."""
        self.root = Folder()
        self._base = root.rstrip("/")
        self._live: dict[str, File | Folder] = {"": self.root}
        self._deleted: dict[str, File | Folder] = {}
        self._submitted: dict[tuple[str, int], tuple[int, str]] = {}
        self._unnamed: dict[tuple[str, int], File] = {}
        """Files that were made without a name, by thread and descriptor."""
        self.lines: list[int] = []
        """Where something changed or was synced: the moments at which a cut makes a difference."""
        for path in existing:
            self._add(_LONG_AGO, (f"/{path}", Folder()))

    # --- the record ---

    def take(self, call: Call) -> None:
        """Take in one call."""
        handler = getattr(self, f"_{call.name}", None)
        if handler is not None and handler(call) is not False:
            self.lines.append(call.ended)

    def _openat(self, call: Call) -> bool:
        path = self._path(call.result_path or "")
        if path is None:
            return False
        if "O_TMPFILE" in call.arguments:
            path = path.removesuffix(_DELETED)
            self._deleted[path] = self._unnamed[call.thread, call.result] = File(path)
            return True
        node = self._live.get(path)
        if node is None and "O_CREAT" in call.arguments:
            self._add(call.ended, (path, File(path)))
            return True
        if isinstance(node, File) and "O_TRUNC" in call.arguments and node.length():
            node.writes.append(Write(call.ended, 0, None))
            return True
        return False

    _open = _creat = _openat

    def _mkdir(self, call: Call) -> bool:
        path = self._target(call, 0)
        if path is None:
            return False
        self._add(call.ended, (path, Folder()))
        return True

    _mkdirat = _mkdir

    def _pwrite64(self, call: Call) -> bool:
        return self._write_at(call, call.number(-1))

    def _pwritev(self, call: Call) -> bool:
        return self._write_at(call, call.number(-1))

    def _pwritev2(self, call: Call) -> bool:
        return self._write_at(call, call.number(-2))

    def _write(self, call: Call) -> bool:
        node = self._file(call)
        return node is not None and self._write_at(call, node.length())

    def _write_at(self, call: Call, offset: int) -> bool:
        node = self._file(call)
        if node is None:
            return False
        data = b"".join(call.texts)[: call.result]
        assert len(data) == call.result, "the record is cut off"
        node.writes.append(Write(call.ended, offset, data))
        return True

    def _ftruncate(self, call: Call) -> bool:
        node = self._file(call)
        if node is None:
            return False
        node.writes.append(Write(call.ended, call.number(-1), None))
        return True

    def _fsync(self, call: Call) -> bool:
        node = self._node(call)
        if node is None:
            return False
        node.synced.append((call.began, call.ended))
        return True

    _fdatasync = _fsync

    def _io_submit(self, call: Call) -> bool:
        """Remember what was asked for in one go: an fsync of each file, by number."""
        numbers = re.findall(r"aio_data=(\w+), aio_lio_opcode=IOCB_CMD_FSYNC", call.arguments)
        assert len(numbers) == len(call.fds), call.arguments
        for number, fd in list(zip(numbers, call.fds, strict=True))[: call.result]:
            self._submitted[call.thread, int(number, 0)] = (call.began, fd)
        return False

    def _io_getevents(self, call: Call) -> bool:
        """Count as synced what has ended well."""
        has_changed = False
        for number, result in re.findall(r"\{data=(\w+), obj=\w+, res=(-?\w+)", call.arguments):
            began, fd = self._submitted.pop((call.thread, int(number, 0)))
            node = self._node_at(fd)
            if node is not None and int(result, 0) == 0:
                node.synced.append((began, call.ended))
                has_changed = True
        return has_changed

    def _rename(self, call: Call) -> bool:
        old, new = self._target(call, 0), self._target(call, 1)
        if old is None or new is None or old not in self._live:
            return False
        self._add(call.ended, (new, self._live[old]), (old, None))
        return True

    _renameat = _renameat2 = _rename

    def _link(self, call: Call) -> bool:
        descriptor = _DESCRIPTOR.fullmatch(call.texts[0].decode())
        old, new = self._target(call, 0), self._target(call, 1)
        if new is None or (old is None and descriptor is None):
            return False
        node = self._live[old or ""] if descriptor is None else self._unnamed[call.thread, int(descriptor[1])]
        self._add(call.ended, (new, node))
        return True

    _linkat = _link

    def _unlink(self, call: Call) -> bool:
        path = self._target(call, 0)
        if path is None or path not in self._live:
            return False
        self._add(call.ended, (path, None))
        return True

    _unlinkat = _rmdir = _unlink

    def _add(self, at: int, *changes: tuple[str, File | Folder | None]) -> None:
        by_folder: dict[str, list[tuple[str, File | Folder | None]]] = {}
        for path, node in changes:
            folder, _, name = path.rpartition("/")
            by_folder.setdefault(folder, []).append((name, node))
            if node is None:
                self._deleted[path] = self._live.pop(path)
            else:
                if path in self._live:
                    self._deleted[path] = self._live[path]
                self._live[path] = node
        assert len(by_folder) == 1, "a rename from one folder to another is not in the model"
        for folder, named in by_folder.items():
            parent = self._live[folder]
            assert isinstance(parent, Folder)
            parent.names.append(Name(at, tuple(named)))

    def _node(self, call: Call) -> File | Folder | None:
        return self._node_at(call.fds[0]) if call.fds else None

    def _node_at(self, fd: str) -> File | Folder | None:
        path = self._path(fd)
        if path is None:
            return None
        if path.endswith(_DELETED):
            return self._deleted[path.removesuffix(_DELETED)]
        node = self._live.get(path)
        return node if node is not None or not _UNNAMED.search(path) else self._deleted[path]

    def _file(self, call: Call) -> File | None:
        node = self._node(call)
        return node if isinstance(node, File) else None

    def _target(self, call: Call, number: int) -> str | None:
        text = call.texts[number].decode()
        if text.startswith("/"):
            return self._path(text)
        return self._path(os.path.join(call.fds[min(number, len(call.fds) - 1)], text)) if call.fds else None

    def _path(self, path: str) -> str | None:
        path = os.path.normpath(path) if not path.endswith(_DELETED) else path
        if path == self._base:
            return ""
        return path[len(self._base) :] if path.startswith(self._base + "/") else None

    # --- the cut ---

    def live(self) -> dict[str, File]:
        """Return the files that are there at the end of the record, by path."""
        return {path: node for path, node in self._live.items() if isinstance(node, File)}

    def after_cut(self, line: int, doubt: Doubt) -> Tree:
        """Return what is there when the power went after a line of the record."""
        tree = Tree({}, {})
        self._gather(self.root, "", line, doubt, tree)
        return tree

    def _gather(self, folder: Folder, path: str, line: int, doubt: Doubt, tree: Tree) -> None:
        names: dict[str, File | Folder] = {}
        for change in _surviving(folder, folder.names, line, doubt):
            assert isinstance(change, Name)
            for name, node in change.changes:
                if node is None:
                    names.pop(name, None)
                else:
                    names[name] = node
        for name, node in names.items():
            below = f"{path}/{name}"
            if isinstance(node, Folder):
                self._gather(node, below, line, doubt, tree)
            else:
                tree.files[below] = _content(_surviving(node, node.writes, line, doubt))
                tree.nodes[below] = node


def _surviving(
    node: File | Folder, operations: list[Write] | list[Name], line: int, doubt: Doubt
) -> list[Write | Name]:
    safe_until = max((began for began, ended in node.synced if ended <= line), default=-1)
    safe = [operation for operation in operations if operation.at < safe_until]
    uncertain = [operation for operation in operations if safe_until <= operation.at <= line]
    return [*safe, *doubt(node, uncertain)]  # type: ignore[arg-type]


def _content(writes: Iterable[Write | Name]) -> bytes:
    content = bytearray()
    for write in writes:
        assert isinstance(write, Write)
        if write.data is None:
            del content[write.offset :]
            content.extend(bytes(write.offset - len(content)))
            continue
        content.extend(bytes(max(0, write.offset + len(write.data) - len(content))))
        content[write.offset : write.offset + len(write.data)] = write.data
    return bytes(content)


# --- what may become of what is in doubt ---


def all_lost(_node: File | Folder, _operations: list[Write] | list[Name]) -> Iterable[Write | Name]:
    """Nothing of it is there."""
    return ()


def all_kept(_node: File | Folder, operations: list[Write] | list[Name]) -> Iterable[Write | Name]:
    """All of it is there."""
    return operations


def names_without_bytes(node: File | Folder, operations: list[Write] | list[Name]) -> Iterable[Write | Name]:
    """Names are there, bytes are not, but files have their length."""
    if isinstance(node, Folder):
        return operations
    return [blank(write) for write in operations if isinstance(write, Write)]


def bytes_without_names(node: File | Folder, operations: list[Write] | list[Name]) -> Iterable[Write | Name]:
    """Bytes are there, new names are not."""
    return () if isinstance(node, Folder) else operations


def any_of_it(dice: random.Random) -> Doubt:
    """Any operations without any other, and any sectors of a write."""

    def choose(node: File | Folder, operations: list[Write] | list[Name]) -> Iterable[Write | Name]:
        likely = dice.choice((0.1, 0.5, 0.9))
        kept: list[Write | Name] = []
        for operation in operations:
            if dice.random() < likely:
                kept.append(operation)
            elif isinstance(operation, Write) and dice.random() < 0.5:
                kept += torn(operation, dice)
        return kept

    return choose


def blank(write: Write) -> Write:
    """Return a write that brought its length, and zeros."""
    return write if write.data is None else Write(write.at, write.offset, bytes(len(write.data)))


def torn(write: Write, dice: random.Random) -> list[Write]:
    """Return some sectors of a write."""
    if write.data is None:
        return []
    pieces = range(0, len(write.data), max(SECTOR_BYTES, len(write.data) // 16 // SECTOR_BYTES * SECTOR_BYTES))
    step = pieces.step
    return [
        Write(write.at, write.offset + start, write.data[start : start + step])
        for start in pieces
        if dice.random() < 0.5
    ]
