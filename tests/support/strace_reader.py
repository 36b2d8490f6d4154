"""Reads what strace recorded (-f -y -xx) as calls in the order of their ends, each with where it began."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILE_CALLS = (
    "open,openat,creat,mkdir,mkdirat,write,pwrite64,pwritev,pwritev2,writev,ftruncate,truncate,fallocate,fsync,fdatasync,sync,"
    "syncfs,io_submit,io_getevents,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,sendto"
)
RECORDING = ("-y", "-xx", "-s", "4000000", "--seccomp-bpf", f"--trace={FILE_CALLS}")

_LINE = re.compile(r"(\d+) +(.*)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
_UNFINISHED = " <unfinished ...>"
_RESULT = re.compile(r"\) += (-?\d+)(?:<((?:\\x..)*|[^>]*)>)?")
_FD = re.compile(r"(?:AT_FDCWD|-?\d+)<([^>]*)>")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a thread: `began` and `ended` are lines of the record; `fds` paths of its descriptors, `texts` its
    strings."""

    thread: str
    began: int
    ended: int
    name: str
    arguments: str
    result: int
    result_path: str | None
    fds: tuple[str, ...]
    texts: tuple[bytes, ...]

    def number(self, at: int) -> int:
        """Return an argument that is a number, counted from the end (-1 is the last)."""
        return int(self.arguments.rsplit(", ", -at)[at].strip(), 0)


def read_calls(path: Path) -> Iterator[Call]:
    """Yield all calls that succeeded."""
    begun: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(path.read_text().splitlines()):
        match = _LINE.match(line)
        if match is None:
            continue
        pid, rest = match.groups()
        if rest.endswith(_UNFINISHED):
            begun[pid] = (number, rest.removesuffix(_UNFINISHED))
            continue
        resumed = _RESUMED.match(rest)
        began = number
        if resumed is not None:
            began, start = begun.pop(pid)
            rest = start + resumed[2]
        call = _call(pid, began, number, rest)
        if call is not None and call.result >= 0:
            yield call


def _call(thread: str, began: int, ended: int, text: str) -> Call | None:
    name, bracket, rest = text.partition("(")
    found = list(_RESULT.finditer(rest))
    if not bracket or not found or not name.isidentifier():
        return None
    result = found[-1]
    arguments = rest[: result.start()]
    plain = _STRING.sub('""', arguments)
    return Call(
        thread=thread,
        began=began,
        ended=ended,
        name=name,
        arguments=plain,
        result=int(result[1]),
        result_path=_decoded(result[2]) if result[2] is not None else None,
        fds=tuple(_decoded(fd) for fd in _FD.findall(plain)),
        texts=tuple(_bytes(string) for string in _STRING.findall(arguments)),
    )


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _decoded(text: str) -> str:
    return _bytes(text).decode() if text.startswith("\\x") else text
