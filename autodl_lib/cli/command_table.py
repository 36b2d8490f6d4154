"""Every command: which module it is in, and its line in `autodl --help`.

Runs as: the caller.  Talks to: nobody; no I/O.
Invariants: a command's name is its method's, with hyphens; its short help is its request's docstring.
"""

from __future__ import annotations

from autodl_lib.contract.light_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A command's module in cli/commands, and its short help where it has no request of the same name."""

    module: str
    help: str | None = None


COMMANDS: dict[str, Entry] = {
    "get": Entry(module="get", help="Download URLs to the current folder, with a progress bar."),
    "add": Entry(module="add"),
    "list": Entry(module="listing"),
    "status": Entry(module="one_task"),
    "watch": Entry(module="watch", help="Follow tasks live, until they are done or you press Ctrl-C."),
    "wait": Entry(module="wait", help="Wait until tasks are done; the exit status says how they ended."),
    "log": Entry(module="one_task"),
    "history": Entry(module="history"),
    "explain": Entry(module="one_task"),
    "pause": Entry(module="queue"),
    "resume": Entry(module="queue"),
    "cancel": Entry(module="tasks"),
    "retry": Entry(module="tasks"),
    "priority": Entry(module="tasks"),
    "clear": Entry(module="queue"),
    "stats": Entry(module="stats"),
    "max-tasks": Entry(module="queue"),
    "limit": Entry(module="limits"),
    "set-url": Entry(module="limits"),
    "daemon": Entry(module="daemon", help="Run the daemon in the foreground."),
    "http": Entry(module="http", help="Serve HTTP to programs on this machine: JSON-RPC, a few reads, events."),
    "install-service": Entry(module="install_service", help="Install autodl as a service of systemd."),
    "completion": Entry(module="completion", help="Print the script that makes a shell complete commands and tasks."),
}


def short_help(name: str) -> str:
    """Return a command's line for the list of commands."""
    own = COMMANDS[name].help
    if own is not None:
        return own
    from autodl_lib.contract.requests.registry import (
        REQUEST_BY_METHOD,  # not at the top: only the list of commands asks
    )

    return (REQUEST_BY_METHOD[name.replace("-", "_")].__doc__ or "").replace("`", "'")
