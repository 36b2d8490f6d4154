"""`autodl get`: add, follow, and say where the file is.

Runs as: the caller.  Talks to: the daemon through client.
Invariants: once queued, a download is the daemon's: neither Ctrl-C nor the daemon's restart ends it.
How it fails: where not all can be queued, nothing is followed, and what goes on all the same is told.
"""

from __future__ import annotations

from typing import Any

import click

from autodl_lib.cli.add_parameters import add_parameters
from autodl_lib.cli.add_requests import add_requests
from autodl_lib.cli.command import make_command
from autodl_lib.cli.sending import Sending, spans
from autodl_lib.cli.session import Session, complain, say, say_json
from autodl_lib.cli.text import clean
from autodl_lib.contract.codec import to_json
from autodl_lib.contract.errors import AutodlError
from autodl_lib.contract.requests.adding import Add

_DESCRIPTION = """Download URLs to the current folder, with a progress bar, and exit when they are done.

Ctrl-C leaves the downloads to the daemon, which goes on in the background. The exit status is 1 if one
failed. Where not all can be queued, the command says which are, and leaves them to the daemon too."""


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    urls = click.Argument(["arguments"], nargs=-1, metavar="[URL|METALINK]...")
    quiet = click.Option(["-q", "--quiet"], is_flag=True, help="show no progress, only where the files are saved")
    options = [option for option in add_parameters(default_dir=".") if option.name != "paused"]
    return {"get": make_command("get", _DESCRIPTION, [urls, *options, quiet], _get)}


def _get(session: Session, quiet: bool, **values: Any) -> int:
    return _follow(session, _queue(session, add_requests(values, default_dir=".", may_end_in_folder=False)), quiet)


def _queue(session: Session, requests: list[Add]) -> list[int]:
    sending = Sending(requests)
    try:
        with session.connect() as connection:
            for _ in sending.answers(connection):
                pass
    except AutodlError:
        if sending.cut_short:
            complain(_with_what_goes_on(sending.cut_short, sending.ids))
        raise
    except KeyboardInterrupt:
        complain(_with_what_goes_on(sending.interrupted, sending.ids))
        raise
    return sending.ids


def _with_what_goes_on(said: str, ids: list[int]) -> str:
    return f"{said}; {_goes_on(ids)}" if ids else said


def _goes_on(ids: list[int]) -> str:
    from autodl_lib.cli.following import numbers

    what, them = ("the download goes", "it") if len(ids) == 1 else (f"the downloads {spans(ids)} go", "them")
    return (
        f"{what} on in the background; `autodl watch {numbers(ids)}` comes back to {them},"
        f" `autodl cancel {numbers(ids)}` ends {them}"
    )


def _follow(session: Session, ids: list[int], quiet: bool) -> int:
    # Not at the top: while these are loaded, the daemon downloads.
    from autodl_lib.cli.display import Display, Silent, choose_display
    from autodl_lib.cli.following import Wanted, follow, report_failures

    display: Display = Silent() if quiet or session.json else choose_display(progress=True, failures=False)
    try:
        wanted = Wanted(ids=tuple(ids), patient=True, ends=quiet or session.json, brief=quiet and not session.json)
        outcome = follow(session, wanted, display)
    except KeyboardInterrupt:
        display.close()
        complain(_goes_on(ids))
        raise
    except BaseException:
        display.close()
        raise
    display.close()
    if session.json:
        say_json({"tasks": [to_json(task) for task in outcome.tasks]})
    elif quiet:
        dests: dict[int, str] = {task.id: task.dest or "" for task in outcome.tasks if task.state == "finished"}
        dests.update(outcome.saved)
        for task_id in ids:
            if task_id in dests:
                say(clean(dests[task_id]))
    report_failures(outcome)
    return 1 if outcome.unfinished else 0
