"""Where the password of `--user` comes from: the terminal, or the first line of a file; never the command line.

Runs as: the caller.  Talks to: the terminal, the file or stdin.
"""

from __future__ import annotations

import os

import click

from autodl_lib.cli.session import stdin_bytes
from autodl_lib.cli.text import clean

_MAX_BYTES = 16384


def check_username(username: str) -> None:
    """Refuse what is no name; above all `NAME:PASSWORD`.

    Raises: click.UsageError, with a message that shows no password.
    """
    if ":" in username:
        raise click.UsageError(
            "--user takes a name without a password: everybody on this machine can see command lines;"
            " give --user NAME, and the password when it is asked for, or in a file with --password-file",
            click.get_current_context(),
        )
    if not username:
        raise click.UsageError("--user must name somebody", click.get_current_context())


def read_password(source: str) -> str:
    """Return the first line of a file, or of stdin (`-`).

    Raises: click.UsageError.
    """
    shown = "stdin" if source == "-" else clean(source)
    try:
        if source == "-":
            line = stdin_bytes().readline(_MAX_BYTES)
        else:
            with open(os.path.expanduser(source), "rb") as file:
                line = file.readline(_MAX_BYTES)
        password = line.decode().rstrip("\r\n")
    except OSError as error:
        raise click.UsageError(f"can't read the password from {shown}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"the password in {shown} is not UTF-8") from None
    if not password:
        raise click.UsageError(f"the first line of {shown} is empty: it must be the password")
    return password


def ask_password(username: str) -> str:
    """Ask on the terminal, without an echo.

    Raises: click.UsageError where there is no terminal, click.Abort.
    """
    import getpass

    try:
        # Not left to getpass: without a terminal it reads stdin, with an echo.
        with open("/dev/tty", "rb"):
            pass
    except OSError:
        raise click.UsageError(
            "--user needs a password, and there is no terminal to ask on: give it in the first line of a file with"
            " --password-file FILE, or of stdin with --password-file -",
            click.get_current_context(),
        ) from None
    try:
        return getpass.getpass(f"Password of {clean(username)}: ")
    except EOFError:
        raise click.Abort from None
