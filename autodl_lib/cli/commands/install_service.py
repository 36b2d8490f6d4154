"""`autodl install-service`: the systemd units, for those whom no package installed them for.

Runs as: root for the machine's service, a user for their own.  Talks to: systemd's folders and programs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from autodl_lib.cli.command import make_command
from autodl_lib.cli.service_files import Scope, packaged_unit, service_files
from autodl_lib.cli.service_setup import Done, check_program, install, uninstall
from autodl_lib.cli.session import Session, complain, say, say_json
from autodl_lib.cli.text import clean
from autodl_lib.contract.errors import AutodlError, NotAllowed

_DESCRIPTION = """Install autodl as a service of systemd, for those who have it from pip.

Writes the units with the path of this program, and a configuration with every key commented unless there is one;
says what it did. Nothing is enabled or started: it says how. --uninstall stops the service and removes what was
written; the queue, accounts and a configuration that was changed are kept."""


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    parameters: list[click.Parameter] = [
        click.Option(["--user"], is_flag=True, help="a service of yours alone, in ~/.config/systemd/user"),
        click.Option(
            ["--system"], is_flag=True, help="the machine's service, in /etc/systemd/system; what root gets by default"
        ),
        click.Option(["--uninstall"], is_flag=True, help="undo it"),
        click.Option(
            ["--root"],
            metavar="DIR",
            type=click.Path(exists=True, file_okay=False, resolve_path=True),
            help="install into the tree below DIR, such as an image's; no program is run",
        ),
    ]
    return {"install-service": make_command("install-service", _DESCRIPTION, parameters, _install_service)}


def _install_service(session: Session, user: bool, system: bool, uninstall: bool, root: str | None) -> int:
    if user and system:
        raise click.UsageError("--user and --system exclude each other")
    scope = Scope(is_system=system or (not user and os.geteuid() == 0), root=Path(root or "/"))
    if scope.is_system and scope.runs_here and os.geteuid() != 0:
        raise NotAllowed("the machine's service is for root to install; --user installs one of yours")
    return _report(session, scope, _take_away(scope, session) if uninstall else _put(scope, session), uninstall)


def _put(scope: Scope, session: Session) -> Done:
    packaged = packaged_unit(scope)
    if packaged is not None:
        raise AutodlError(f"a package has installed {packaged} already; {_start_words(scope)}")
    program = _program(session.entry)
    if scope.is_system and scope.runs_here:
        check_program([*program, sys.executable, session.entry, __file__])
    return install(scope, service_files(scope, program))


def _take_away(scope: Scope, session: Session) -> Done:
    return uninstall(scope, service_files(scope, _program(session.entry)))


def _report(session: Session, scope: Scope, done: Done, uninstalled: bool) -> int:
    failed = [what for verb, what in done.steps if verb == "failed"]
    if session.json:
        say_json({"steps": [{"did": verb, "what": what} for verb, what in done.steps]})
    else:
        for verb, what in done.steps:
            if verb != "failed":
                say(clean(f"{verb} {what}"))
        if not done.steps:
            say("nothing was installed")
        elif not uninstalled and scope.runs_here:
            say(_start_words(scope))
    for what in failed:
        complain(clean(what))
    return 1 if failed else 0


def _start_words(scope: Scope) -> str:
    return f"start it with `systemctl {'' if scope.is_system else '--user '}enable --now autodl`"


def _program(entry: str) -> list[str]:
    """Return what runs this program again: the script it was started by, or Python and its file."""
    script = os.path.abspath(sys.argv[0])
    if os.path.basename(script) == "autodl" and os.access(script, os.X_OK):
        return [script]
    return [sys.executable, os.path.abspath(entry)]
