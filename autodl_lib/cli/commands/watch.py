"""`autodl watch`: a live view.

Runs as: the caller.  Talks to: the daemon through client.
"""

from __future__ import annotations

import click

from autodl_lib.cli.command import request_command
from autodl_lib.cli.display import Display, JsonLines, choose_display
from autodl_lib.cli.following import Wanted, follow
from autodl_lib.cli.session import Session
from autodl_lib.contract.requests.following import Watch
from autodl_lib.contract.states import SETTLED
from autodl_lib.contract.task import Task

_NOTE = """On a terminal, bars; else a line for each change of state; with --json, a JSON object a line.

With IDs it ends when all of them are done, without when you press Ctrl-C, which stops no download."""


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    command = request_command("watch", Watch, _watch)
    command.help = f"Follow tasks live, yours or those with the given numbers.\n\n{_NOTE}"
    return {"watch": command}


def _watch(session: Session, request: Watch) -> None:
    ids = tuple(dict.fromkeys(request.ids)) if request.ids else None
    display: Display = JsonLines() if session.json else choose_display(progress=False, failures=True)
    if ids is None and not session.json:
        display = OnlyNews(display)
    try:
        follow(session, Wanted(ids=ids, all=request.all, progress=display.tick_s < 1 or session.json), display)
    finally:
        display.close()


class OnlyNews:
    """Leaves out tasks that were settled before anybody watched."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._seen: set[int] = set()
        self.tick_s = display.tick_s

    def show(self, task: Task) -> None:
        if task.state in SETTLED and task.id not in self._seen:
            return
        self._seen.add(task.id)
        self._display.show(task)

    def draw(self) -> None:
        self._display.draw()

    def note(self, text: str) -> None:
        self._display.note(text)

    def close(self) -> None:
        self._display.close()
