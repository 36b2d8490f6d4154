"""`autodl completion`: the script that makes a shell complete `autodl`.

Runs as: the caller.  Talks to: stdout.
"""

from __future__ import annotations

import click

from autodl_lib.cli.command import make_command
from autodl_lib.cli.completion_scripts import SCRIPTS, Shell
from autodl_lib.cli.options import EnumChoice
from autodl_lib.cli.session import Session, say_json

_DESCRIPTION = """Print the script that makes a shell complete commands, options and task numbers.

Packages install it. Elsewhere, put `eval "$(autodl completion bash)"` into ~/.bashrc, the same with zsh into
~/.zshrc, or `autodl completion fish | source` into ~/.config/fish/config.fish."""


def commands() -> dict[str, click.Command]:
    """Make this file's commands."""
    shell = click.Argument(["shell"], type=EnumChoice(Shell), metavar="|".join(Shell))
    return {"completion": make_command("completion", _DESCRIPTION.replace("`", "'"), [shell], _completion)}


def _completion(session: Session, shell: Shell) -> None:
    import sys

    if session.json:
        say_json({"shell": shell, "script": SCRIPTS[shell]})
    else:
        sys.stdout.write(SCRIPTS[shell])
