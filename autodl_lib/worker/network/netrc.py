"""What ~/.netrc says of one host.

Runs as: the task's owner.  Talks to: nobody; no I/O.
libcurl could read the file itself, but it then looks hosts up that a redirect leads to, and for years has leaked the
first host's password to them in ever new ways (CVE-2024-11053, CVE-2025-0167, CVE-2026-6429, CVE-2026-8926). Read
here, a login is given for the host of the URL and for no other.
Invariants: an entry counts only when its login and its password are there.
Source: https://www.gnu.org/software/inetutils/manual/html_node/The-_002enetrc-file.html; quotes and `#` as in curl.
Known limits: a host that only a redirect leads to is not logged in to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_WORD = re.compile(r'"((?:\\.|[^"\\])*)"|(\S+)')
_ESCAPED = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user name and its password."""

    username: str
    password: str


@dataclass(slots=True)
class _Entry:
    machine: str | None
    login: str | None = None
    password: str | None = None


def find_login(text: str, host: str, username: str | None) -> Login | None:
    """Return the first complete entry for a host, and for `username` when that is known; `default` fits every host."""
    for entry in _entries(text):
        if entry.machine is not None and entry.machine.lower() != host.lower():
            continue
        if entry.login and entry.password is not None and username in (None, entry.login):
            return Login(username=entry.login, password=entry.password)
    return None


def _entries(text: str) -> list[_Entry]:
    entries: list[_Entry] = []
    words = _words(text)
    for word in words:
        match word:
            case "machine":
                entries.append(_Entry(next(words, "")))
            case "default":
                entries.append(_Entry(None))
            case "login" | "password" | "account":
                value = next(words, "")
                if entries and word == "login":
                    entries[-1].login = value
                elif entries and word == "password":
                    entries[-1].password = value
    return entries


def _words(text: str) -> Iterator[str]:
    in_macro = False
    for line in text.split("\n"):
        if in_macro:
            in_macro = bool(line.strip())
            continue
        for found in _WORD.finditer(line):
            quoted, bare = found.groups()
            if quoted is not None:
                yield _ESCAPED.sub(lambda escape: _ESCAPES.get(escape[1], escape[1]), quoted)
            elif bare.startswith("#") and not line[: found.start()].strip():
                break
            elif bare == "macdef":
                in_macro = True
                break
            else:
                yield bare
