"""`autodl wait`: block until tasks are settled.

Runs as: the caller.  Talks to: the daemon through client.
"""

from __future__ import annotations

import click

from autodl_lib.cli.command import make_command
from autodl_lib.cli.display import Display, Lines, Silent
from autodl_lib.cli.following import Wanted, follow, numbers, report_failures
from autodl_lib.cli.options import Seconds, request_parameters
from autodl_lib.cli.session import Session, say_json
from autodl_lib.contract.codec import to_json
from autodl_lib.contract.errors import TimedOut
from autodl_lib.contract.requests.tasks import Cancel

_DESCRIPTION = """Wait until tasks are done.

The exit status is 0 if all are finished, 1 if one failed or was cancelled or cleared, 4 if there is no
such task, 6 if the time was over first."""


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    # Its ids are declared as those of `cancel`: at least one.
    parameters = request_parameters(Cancel)
    timeout = click.Option(["timeout_s", "--timeout"], type=Seconds(0, 10**9), metavar="SECONDS", help="wait no longer")
    return {"wait": make_command("wait", _DESCRIPTION, [*parameters, timeout], _wait)}


def _wait(session: Session, ids: tuple[int, ...], timeout_s: float | None) -> int:
    display: Display = Silent() if session.json else Lines(starts=False, progress=False, failures=False)
    wanted = Wanted(ids=tuple(dict.fromkeys(ids)), progress=False, ends=not session.json, timeout_s=timeout_s)
    outcome = follow(session, wanted, display)
    if session.json:
        say_json({"tasks": [to_json(task) for task in outcome.tasks]})
    report_failures(outcome)
    if outcome.pending:
        raise TimedOut(f"timed out after {timeout_s:g} s; not done yet: {numbers(sorted(outcome.pending))}")
    return 1 if outcome.unfinished else 0
