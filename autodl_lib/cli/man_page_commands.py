"""The manual's entries for commands and their options, made from click's own objects: what `--help` shows too.

Runs as: a developer.  Talks to: nobody; no I/O.
Invariants: every command of the table and every option that is not hidden has an entry; options that `add` and
`get` share are described once, under their headings.
"""

from __future__ import annotations

import dataclasses
import re

import click

from autodl_lib.cli.command import common_parameters
from autodl_lib.cli.command_table import COMMANDS
from autodl_lib.cli.main import CommandGroup
from autodl_lib.cli.man_page_roff import bold, italic, item, paragraphs, section, sentence
from autodl_lib.cli.options import EnumChoice
from autodl_lib.contract.fields import MAX_INT, param_of
from autodl_lib.contract.requests.adding import Add
from autodl_lib.contract.requests.registry import REQUEST_BY_METHOD
from autodl_lib.contract.transfer_options import OptionGroup

_COMMON = {parameter.name for parameter in common_parameters()}
_HEADINGS = {group.value for group in OptionGroup}
_BRACKETS = re.compile(r" \[default: (.*?)\]")
_ELSE = re.compile(r" \[(else .*?)\]")


def all_commands() -> dict[str, click.Command]:
    """Return every command by name, in the order of the table."""
    group = CommandGroup()
    context = click.Context(group, info_name="autodl")
    found = {name: group.get_command(context, name) for name in COMMANDS}
    return {name: command for name, command in found.items() if command is not None}


def command_entries() -> str:
    """Return an entry for each command, with the options that are its own."""
    return "\n".join(_entry(name, command) for name, command in all_commands().items())


def transfer_options() -> str:
    """Return the options that `add` and `get` share, under their headings."""
    add, get = (_options(all_commands()[name]) for name in ("add", "get"))
    lines: list[str] = []
    for group in OptionGroup:
        lines.append(section(group.value))
        for name, option in add.items():
            if getattr(option, "group", "") == group:
                lines.append(option_entry(option, _difference(option, get.get(name))))
    return "\n".join(lines)


def general_options() -> str:
    """Return the options that every command takes, and `autodl` without one."""
    options = [option for option in CommandGroup().params if isinstance(option, click.Option)]
    entries = [option_entry(option) for option in options]
    entries.append(item(f"{bold('-h')}, {bold('--help')}", "Say what the command does and which options it takes."))
    return "\n".join(entries)


def daemon_options() -> str:
    """Return the options of the daemon."""
    return "\n".join(option_entry(option) for option in _options(all_commands()["daemon"]).values())


def option_entry(option: click.Option, note: str = "") -> str:
    """Return an option's entry: its spellings, its meaning, its range."""
    meaning = sentence(_ELSE.sub(r"; \1", _BRACKETS.sub("", option.help or "")))
    facts = [meaning, _choices(option), _range(option), _default(option), note]
    return item(option_tag(option), " ".join(filter(None, facts)))


def option_tag(option: click.Option) -> str:
    """Return an option's spellings, and what stands for its value."""
    # As in --help, the short spelling goes first.
    spellings = ", ".join(bold(spelling) for spelling in sorted(option.opts, key=lambda word: word.startswith("--")))
    return spellings if option.is_flag else f"{spellings} {italic(_placeholder(option))}"


def synopsis(name: str, command: click.Command) -> str:
    """Return a command's usage on one line of plain text."""
    arguments = [parameter.metavar or "" for parameter in command.params if isinstance(parameter, click.Argument)]
    return " ".join([f"autodl {name}", *(["[OPTION...]"] if _options(command) else []), *arguments])


def _entry(name: str, command: click.Command) -> str:
    lines = [section(synopsis(name, command)), paragraphs(command.help or "")]
    shared = {name for name, option in _options(command).items() if getattr(option, "group", "") in _HEADINGS}
    if shared:
        lines.append('.PP\nIts options are those of\n.BR "TRANSFER OPTIONS" ,\nbelow.')
    if name == "daemon":
        return "\n".join([*lines, ".PP\nIts options are in\n.BR autodl\\-daemon (8)."])
    lines += _arguments(name)
    lines += [option_entry(option) for key, option in _options(command).items() if key not in shared]
    return "\n".join(lines)


def _arguments(name: str) -> list[str]:
    """Return the entries of arguments that are not just the numbers of tasks or what to download."""
    request = REQUEST_BY_METHOD.get(name.replace("-", "_"))
    fields = dataclasses.fields(request) if request is not None and request is not Add else ()
    declared = [param_of(field) for field in fields]
    return [
        item(italic(one.metavar), sentence(one.help))
        for one in declared
        if one.metavar and not one.cli and one.metavar != "ID"
    ]


def _difference(of_add: click.Option, of_get: click.Option | None) -> str:
    """Say what an option of `add` is with `get`, where that is something else."""
    if of_get is None:
        return "Not with `autodl get`."
    default = _BRACKETS.search(of_get.help or "")
    return f"With `autodl get` it is `{default[1]}` instead." if default and of_get.help != of_add.help else ""


def _options(command: click.Command) -> dict[str, click.Option]:
    return {
        str(parameter.name): parameter
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden and parameter.name not in _COMMON
    }


def _placeholder(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    return max(option.opts, key=len).lstrip("-").rpartition("-")[2].upper()


def _choices(option: click.Option) -> str:
    if not isinstance(option.type, EnumChoice):
        return ""
    return f"One of {', '.join(f'`{member}`' for member in option.type.members)}."


def _range(option: click.Option) -> str:
    kind = option.type
    if not isinstance(kind, (click.IntRange, click.FloatRange)) or option.metavar == "ID":
        return ""
    low = f"from {kind.min:g}" if kind.min not in (None, -MAX_INT, 0) else ""
    high = f"to {kind.max:g}" if kind.max not in (None, MAX_INT, 10**9) else ""
    both = " ".join(filter(None, [low, high]))
    return sentence(f"{both[0].upper()}{both[1:]}") if both else ""


def _default(option: click.Option) -> str:
    written = _BRACKETS.search(option.help or "")
    default = written[1] if written else option.default if option.show_default is True else None
    return "" if default is None else f"Default: `{default}`."
