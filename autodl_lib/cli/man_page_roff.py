"""Writes man(7) macros: plain text with `code` in, roff out.

Runs as: a developer.  Talks to: nobody; no I/O.
Invariants: what comes out is ASCII in lines of at most 80 characters, a sentence a line at least, and no
character of the text is taken for a request or an escape.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

LINE_LENGTH = 78

# Words in backticks are code; so are those in single quotes, as `--help` shows them, but not an apostrophe.
_CODE = re.compile(r"`([^`\n]+)`|(?<!\w)'([^'\n]+)'(?!\w)")
_OPTION = re.compile(r"(?<![\w-])--?[A-Za-z0-9][\w-]*")
_SENTENCE_END = re.compile(r"(?<=[.:!?]) +(?=[A-Z`'])")
# Source: groff_char(7): typed plainly, these are set as other characters than those of a shell.
_SPECIAL = {"\\": r"\e", "~": r"\(ti", "^": r"\(ha", "'": r"\(aq", "`": r"\(ga", '"': r"\(dq"}


def bold(text: str) -> str:
    """Return literal text, to be typed as it stands."""
    return rf"\fB{_literal(text)}\fP"


def italic(text: str) -> str:
    """Return a placeholder."""
    return rf"\fI{_literal(text)}\fP"


def prose(text: str) -> str:
    """Return running text: lines of it, with what is marked as code in bold."""
    lines: list[str] = []
    for sentence in _SENTENCE_END.split(" ".join(text.split())):
        lines += _wrapped(_inline(sentence))
    return "\n".join(lines)


def paragraphs(text: str) -> str:
    """Return text whose paragraphs are separated by empty lines."""
    return "\n.PP\n".join(prose(part) for part in re.split(r"\n\s*\n", text.strip()))


def item(tag: str, *texts: str) -> str:
    """Return an entry of a list; `tag` is roff already, `texts` are its paragraphs."""
    return "\n.IP\n".join([f".TP\n{tag}\n{prose(texts[0])}", *map(prose, texts[1:])])


def section(heading: str) -> str:
    """Return a heading below that of a page's section."""
    return f'.SS "{_literal(heading)}"'


def example(lines: Iterable[str]) -> str:
    """Return lines that are shown as they stand."""
    shown = [_guarded(_literal(line)) for line in lines]
    return "\n".join([".PP", ".in +4n", ".EX", *shown, ".EE", ".in"])


def sentence(text: str) -> str:
    """Make a sentence of a phrase of `--help`: a capital letter, unless it opens with a name, and a full stop."""
    opening = re.match(r"[a-z]+(?=[ ,;]|$)", text)
    if opening:
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!")) else text + "."


def _literal(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text).replace("-", r"\-")


def _inline(text: str) -> str:
    parts: list[str] = []
    end = 0
    for match in _CODE.finditer(text):
        parts += [_plain(text[end : match.start()]), bold(match[1] or match[2])]
        end = match.end()
    return "".join([*parts, _plain(text[end:])])


def _plain(text: str) -> str:
    escaped = "".join(r"\e" if c == "\\" else r"\(ti" if c == "~" else r"\(ha" if c == "^" else c for c in text)
    return _OPTION.sub(lambda match: match[0].replace("-", r"\-"), escaped)


def _wrapped(text: str) -> list[str]:
    lines = textwrap.wrap(text, LINE_LENGTH - 2, break_long_words=False, break_on_hyphens=False)
    return [_guarded(line) for line in lines]


def _guarded(line: str) -> str:
    return rf"\&{line}" if line.startswith((".", "'")) else line
