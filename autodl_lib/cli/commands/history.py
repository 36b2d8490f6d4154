"""`autodl history`: who changed what, and how tasks ended.

Runs as: the caller.  Talks to: the daemon through client.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from autodl_lib.cli.actors import actor_words
from autodl_lib.cli.command import described, make_command
from autodl_lib.cli.moments import since_option
from autodl_lib.cli.options import make_request, request_parameters
from autodl_lib.cli.session import Session, complain, say, say_json
from autodl_lib.cli.text import clean, stamp
from autodl_lib.client.results import decoded, listed
from autodl_lib.contract.replies.records import HistoryEntry
from autodl_lib.contract.requests.overviews import History


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    since = since_option("only since then")
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
