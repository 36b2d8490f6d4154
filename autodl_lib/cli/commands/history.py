"""`autodl history`: who changed what, and how tasks ended.

Runs as: the caller.  Talks to: the daemon through client.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from autodl_lib.cli.actors import actor_words
from autodl_lib.cli.command import described, make_command
from autodl_lib.cli.options import make_request, request_parameters
from autodl_lib.cli.session import Session, complain, say, say_json
from autodl_lib.cli.text import clean, stamp
from autodl_lib.client.results import decoded, listed
from autodl_lib.contract.replies import HistoryEntry
from autodl_lib.contract.requests import History

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_WORDS = {"today": 0, "yesterday": 1}


class Moment(click.ParamType):  # type: ignore[type-arg]
    """A point in time: 2h, 3d (ago), today, 2026-11-22, 2026-11-22T10:30, or epoch seconds."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value).strip()
        ago = _AGO.fullmatch(text)
        try:
            if ago is not None:
                at = time.time() - float(ago[1]) * _UNIT_S[ago[2]]
            elif text in _WORDS:
                midnight = datetime.now().replace(hour=0, minute=0, second=0, microsecond=0)
                at = midnight.timestamp() - _WORDS[text] * 86400
            elif text.replace(".", "", 1).isdecimal():
                at = float(text)
            else:
                at = datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is no time such as 2h, 3d, today, 2026-11-22 or 2026-11-22T10:30", param, ctx)
        return min(max(0.0, at), 1e11)


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    since = click.Option(
        ["since", "--since"], type=Moment(), metavar="TIME", help="only since then: 2h, 3d, today, 2026-11-22T10:30"
    )
    return {"history": make_command("history", described(History), [since, *request_parameters(History)], _history)}


def _history(session: Session, **values: Any) -> None:
    result = session.call(make_request(History, values))
    if session.json:
        say_json(result)
        return
    entries = [decoded(HistoryEntry, entry) for entry in listed(result, "events")]
    for entry in entries:
        say("  ".join(_cells(entry)).rstrip())
    if not entries:
        complain("nothing has happened" + (" since then" if values.get("since") is not None else ""))


def _cells(entry: HistoryEntry) -> Iterator[str]:
    yield stamp(entry.at)
    yield f"{clean(entry.event):<10}"
    yield f"task {entry.id}" if entry.id is not None else "the queue" if entry.uid >= 0 else "the daemon"
    if entry.owner is not None and entry.owner != entry.actor:
        yield f"of {clean(entry.owner)}"
    if entry.actor is not None:
        yield f"by {actor_words(entry.actor, entry.pid, entry.program)}"
    if entry.url is not None:
        yield clean(entry.url)
    if entry.detail:
        yield clean(entry.detail)
