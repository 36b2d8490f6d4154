"""Turns values into text for people: sizes, speeds, times, and strings that the terminal can trust.

Runs as: the caller.  Talks to: nobody; no I/O but the clock.
Security: names, URLs and messages come from servers and other people; `clean` is what stands between
them and the terminal. JSON output needs none of it: it is ASCII.
"""

from __future__ import annotations

import re
import time
import unicodedata

from autodl_lib.contract.task import Task
from autodl_lib.contract.urls import redact_url

UNKNOWN = "-"

# C0, DEL and C1 controls, line separators, what turns the direction of text, lone surrogates.
_UNSAFE = "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def clean(text: str) -> str:
    """Replace what could steer a terminal or mislead its reader."""
    if text.isascii() and text.isprintable():
        return text
    return re.sub(_UNSAFE, "\N{REPLACEMENT CHARACTER}", text)


def size(number_bytes: int | None) -> str:
    """Write 1536 as `1.5 KiB`."""
    if number_bytes is None:
        return UNKNOWN
    value, unit = float(number_bytes), _UNITS[0]
    for unit in _UNITS:  # noqa: B007
        if value < 1023.95:
            break
        value /= 1024
    return f"{number_bytes} B" if unit == "B" else f"{value:.1f} {unit}"


def speed(bytes_per_s: int) -> str:
    """Write a speed, nothing as `-`."""
    return f"{size(bytes_per_s)}/s" if bytes_per_s else UNKNOWN


def duration(seconds: float | None) -> str:
    """Write 3725 as `1:02:05`."""
    if seconds is None:
        return UNKNOWN
    whole = max(int(seconds), 0)
    if whole >= 86400:
        return f"{whole // 86400}d{whole % 86400 // 3600:02}h"
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def percent(task: Task) -> str:
    """Write how much of a task is done."""
    share = fraction(task)
    # Never 100% before it is.
    return UNKNOWN if share is None else f"{int(share * 100)}%"


def fraction(task: Task) -> float | None:
    """Return the share that is done, from 0 to 1, or None while the size is unknown."""
    if task.state == "finished":
        return 1.0
    if not task.bytes_total:
        return None
    return min(task.bytes_done / task.bytes_total, 1.0)


def moment(at: float | None, *, now: float | None = None) -> str:
    """Write a time of the epoch as local time and how far away that is."""
    if at is None:
        return UNKNOWN
    away_s = at - (time.time() if now is None else now)
    ago = f"in {_rough(away_s)}" if away_s > 0 else f"{_rough(-away_s)} ago"
    return f"{stamp(at)} ({ago})"


def stamp(at: float) -> str:
    """Write a time of the epoch as local time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return f"{at:.0f}"


def name_of(task: Task) -> str:
    """Return what to call a task: its file's name, else its URL without credentials."""
    return clean(task.name or redact_url(task.url))


def width(text: str) -> int:
    """Count terminal cells, not characters."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def shorten(text: str, cells: int) -> str:
    """Cut the middle out of a text that is wider than `cells`."""
    if width(text) <= cells:
        return text
    if cells <= 1:
        return "…"[:cells]
    tail_cells = (cells - 1) // 3
    return _head(text, cells - 1 - tail_cells) + "…" + _head(text[::-1], tail_cells)[::-1]


def plural(number: int, noun: str) -> str:
    """Write `1 task`, `2 tasks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _rough(seconds: float) -> str:
    for limit, unit_s, unit in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _head(text: str, cells: int) -> str:
    used = 0
    for index, character in enumerate(text):
        used += _cells(character)
        if used > cells:
            return text[:index]
    return text
