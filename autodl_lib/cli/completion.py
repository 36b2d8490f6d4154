"""Completion of the command line: commands, options, values, files, and task ids with their names.

Runs as: the caller, while a shell waits.  Talks to: stdout; completion_tasks asks the daemon.
`_AUTODL_COMPLETE=bash_source autodl` prints the script for bash, which runs `_AUTODL_COMPLETE=bash_complete autodl`.
As a developer: `python -m autodl_lib.cli.completion completions/` writes the scripts for packages.
How it fails: without a word, with no candidates.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, ShellComplete

from autodl_lib.cli.command_table import COMMANDS, short_help
from autodl_lib.cli.completion_scripts import INSTALLED_AS, SCRIPTS, Shell
from autodl_lib.cli.options import EnumChoice
from autodl_lib.cli.session import Session
from autodl_lib.cli.text import clean

VARIABLE = "_AUTODL_COMPLETE"
_DESCRIPTION_LENGTH = 60


def complete(group: click.Group, session: Session) -> int:
    """Do what the variable asks for: print a shell's script, or candidates for the line that is being typed."""
    shell, _, instruction = os.environ[VARIABLE].partition("_")
    if shell not in set(Shell):
        return 1
    if instruction == "source":
        sys.stdout.write(SCRIPTS[Shell(shell)])
        return 0
    try:
        line = TypedLine(CompletingGroup(group), {"obj": session}, "autodl", VARIABLE)
        sys.stdout.write(line.complete() + "\n")
    except Exception:  # noqa: BLE001 - a line that is being typed is no place for messages
        return 1
    return 0


class TypedLine(ShellComplete):
    """What has been typed so far, as the scripts pass it on; and candidates, as they read them."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor, and the beginning of the one at it."""
        if "COMP_LINE" in os.environ:
            # Not bash's own words: those are cut at every colon and equals sign.
            typed = os.environ["COMP_LINE"]
            words = _split(typed)
            if not words or typed[-1:].isspace():
                words.append("")
        else:
            words = os.environ["COMP_WORDS"].split("\n")[: int(os.environ["COMP_CWORD"]) + 1]
        return words[1:-1], words[-1]

    def format_completion(self, item: CompletionItem) -> str:
        """Write kind, value and description."""
        shell = os.environ[VARIABLE].partition("_")[0]
        # bash has no columns for descriptions: only numbers, which say nothing, get them.
        help_text = item.help if shell != Shell.BASH or str(item.value).isdigit() else ""
        value = item.value or "."
        if shell == Shell.FISH and item.type == "plain":
            value = _option_of_joined_word() + value
        return f"{item.type}\t{value}\t{clean(help_text or '')}"


class CompletingGroup(click.Group):
    """The real group, with parameters that know their candidates."""

    def __init__(self, group: click.Group) -> None:
        super().__init__(group.name, params=group.params, no_args_is_help=False, callback=lambda: None)
        self._group = group

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a real command, whose parameters take any word and complete it."""
        command = self._group.get_command(ctx, cmd_name)
        for parameter in command.params if command is not None else ():
            parameter.type = Candidates(cmd_name, parameter)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return commands without importing them, or options."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(name, help=short_help(name)) for name in COMMANDS if name.startswith(incomplete)]


class Candidates(click.ParamType):  # type: ignore[type-arg]
    """What a parameter takes, by its type and by what `--help` calls its value."""

    name = "candidates"

    def __init__(self, command: str, parameter: click.Parameter) -> None:
        self._command = command
        self._kind = parameter.type
        self._metavar = parameter.metavar or ""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return what could stand here."""
        if isinstance(self._kind, EnumChoice):
            return [CompletionItem(member) for member in self._kind.members if member.startswith(incomplete)]
        words = set(self._metavar.replace("...", "").replace("[", " ").replace("]", " ").replace("|", " ").split())
        if "ID" in words:
            return _task_items(self._command, ctx, param, incomplete)
        if words & {"FILE", "METALINK"}:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(incomplete, type="dir")] if "DIR" in words else []


def write_scripts(folder: Path) -> None:
    """Write the scripts as packages install them."""
    for shell, name in INSTALLED_AS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SCRIPTS[shell], "ascii")


def _task_items(command: str, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    from autodl_lib.cli.completion_tasks import tasks_for

    session = ctx.find_object(Session)
    given = ctx.params.get(param.name or "")
    named = {str(one) for one in given} if isinstance(given, (tuple, list)) else set()
    items = []
    for task in tasks_for(command, session.socket if session else None, incomplete):
        if str(task.id) not in named:
            name = task.name or task.url.partition("?")[0].rpartition("/")[2] or task.url
            items.append(CompletionItem(str(task.id), help=f"{name[:_DESCRIPTION_LENGTH]} ({task.state})"))
    return items


def _split(line: str) -> list[str]:
    """Split as a shell does; a quote that is not closed yet is closed at the end."""
    import shlex

    for closing in ("", "'", '"'):
        try:
            return shlex.split(line + closing)
        except ValueError:
            continue
    return line.split()


def _option_of_joined_word() -> str:
    """Return `--option=` if the word at the cursor begins so: fish wants whole words."""
    word = os.environ["COMP_WORDS"].split("\n")[-1]
    name, equals, _ = word.partition("=")
    return name + equals if equals and name.startswith("--") else ""


if __name__ == "__main__":
    write_scripts(Path(sys.argv[1]))
