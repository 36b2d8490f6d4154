"""`autodl stats`: counters.

Runs as: the caller.  Talks to: the daemon through client.
"""

from __future__ import annotations

import click

from autodl_lib.cli.command import request_command
from autodl_lib.cli.session import Session, say, say_json
from autodl_lib.cli.table import key_values
from autodl_lib.cli.text import clean, moment, size, speed
from autodl_lib.client.results import statistics_from
from autodl_lib.contract.requests.overviews import Stats


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    return {"stats": request_command("stats", Stats, _stats)}


def _stats(session: Session, request: Stats) -> None:
    result = session.call(request)
    if session.json:
        say_json(result)
        return
    stats = statistics_from(result)
    responses = {code: count for code, count in stats.responses.items() if code != "total"}
    say("Tasks")
    say(key_values([(clean(state), str(count)) for state, count in stats.tasks.items()], indent=2))
    say("Responses in the last 10 minutes")
    rows = [(clean(code), str(count)) for code, count in sorted(responses.items())]
    say(key_values([*rows, ("total", str(stats.responses.get("total", sum(responses.values()))))], indent=2))
    say("Transfer")
    held = (
        "no"
        if not stats.held
        else "yes, until " + (moment(stats.held_until) if stats.held_until else "`autodl resume`")
    )
    transfer = [
        ("downloaded", size(stats.bytes)),
        ("speed", speed(stats.speed_bps)),
        ("at once", f"at most {stats.max_tasks_num}"),
        ("held", held),
    ]
    say(key_values(transfer, indent=2))
