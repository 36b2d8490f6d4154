"""The command line's frame: the lazy group, and what becomes of every error.

Runs as: the caller.  Talks to: stdout, stderr.
Invariants: a command's module is imported when that command is used; what goes wrong becomes
`autodl: message` on stderr and an exit status, never a traceback (AUTODL_DEBUG=1 shows it).
Exit statuses: 0 done, 1 failed, 2 usage, 3 no daemon, 4 no such task, 5 not allowed, 6 timed out,
130 interrupted, 141 nobody reads the output.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

import click

from autodl_lib.cli.command import common_parameters
from autodl_lib.cli.command_table import COMMANDS, short_help
from autodl_lib.cli.session import Output, OutputError, RunDaemon, Session, complain, name_errors_of_stdout
from autodl_lib.cli.text import clean
from autodl_lib.contract.errors import AutodlError

if TYPE_CHECKING:
    from autodl_lib.cli.session import RunHttp

INTERRUPTED = 130
BROKEN_PIPE = 141
_SENTENCE = re.compile("[A-Z][a-z]+ ")
"""How click's own messages begin; one of ours may begin with a file's name."""


def run(
    arguments: Sequence[str],
    *,
    entry: str,
    run_daemon: RunDaemon,
    run_http: RunHttp | None = None,
    loaded: Callable[[], None] | None = None,
) -> int:
    """Run one command line and return its exit status; `entry` is the path of autodl.py.

    `loaded` is called when the command's own work begins.
    """
    _fill_gaps()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    name_errors_of_stdout()
    group = CommandGroup()
    session = Session(entry=entry, run_daemon=run_daemon, run_http=run_http, loaded=loaded)
    try:
        if "_AUTODL_COMPLETE" in os.environ:
            from autodl_lib.cli.completion import complete

            return complete(group, session)
        status = _invoke(group, list(arguments), session)
        sys.stdout.flush()
        return status
    except BaseException as error:  # noqa: BLE001
        return _report(error)


def leave(status: int) -> NoReturn:
    """End the process at once: to take the interpreter apart takes a tenth of what a small command does."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # nobody reads it, or it is closed
            status = status or 1
    os._exit(status)


class CommandGroup(click.Group):
    """All commands by name, each imported when it is asked for."""

    def __init__(self) -> None:
        super().__init__(
            "autodl",
            params=common_parameters(),
            callback=lambda: None,
            invoke_without_command=True,
            help="Download files in the background: queue them, watch them, come back later.",
            context_settings={"help_option_names": ["-h", "--help"]},
        )

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"autodl_lib.cli.commands.{entry.module}")
        command: click.Command = module.commands()[cmd_name]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is asked for, or name the nearest one."""
        name = args[0]
        if not name.startswith("-") and name not in COMMANDS:
            from difflib import get_close_matches

            near = get_close_matches(name, COMMANDS, n=1)
            ctx.fail(f"no such command: {name}" + (f"; did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short_help(name)) for name in COMMANDS])


def _invoke(group: CommandGroup, arguments: list[str], session: Session) -> int:
    try:
        with group.make_context("autodl", arguments, obj=session) as context:
            result = group.invoke(context)
            if context.invoked_subcommand is None:
                click.echo(context.get_help())
            return result if isinstance(result, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code


def _report(error: BaseException) -> int:
    if os.environ.get("AUTODL_DEBUG") and not isinstance(error, (SystemExit, KeyboardInterrupt)):
        import traceback

        traceback.print_exception(error)
    try:
        return _explain(error)
    except OSError:
        # Nobody reads stderr either.
        return 1
    finally:
        _silence_stdout()


def _explain(error: BaseException) -> int:
    match error:
        case SystemExit():
            return error.code if isinstance(error.code, int) else 1
        case KeyboardInterrupt() | click.Abort():
            return INTERRUPTED
        case BrokenPipeError():
            return BROKEN_PIPE
        case OutputError():
            complain(str(error))
            return 1
        case AutodlError():
            complain(_clean_lines(str(error)))
            return error.exit_status
        case click.UsageError():
            complain(_usage(error))
            return 2
        case click.ClickException():
            complain(clean(error.format_message()))
            return error.exit_code
        case OSError():
            where = f": {error.filename}" if error.filename else ""
            complain(clean(f"{error.strerror or error}{where}"))
            return 1
        case _:
            complain(
                clean(
                    f"internal error: {type(error).__name__}: {error}; please report this (AUTODL_DEBUG=1 shows more)"
                )
            )
            return 1


def _usage(error: click.UsageError) -> str:
    message = error.format_message()
    if _SENTENCE.match(message):
        message = message[0].lower() + message[1:]
    message = clean(message).rstrip(".")
    path = error.ctx.command_path if error.ctx is not None else "autodl"
    return f"{message}\nautodl: try '{path} --help'"


def _clean_lines(text: str) -> str:
    return "\n".join(clean(line) for line in text.split("\n"))


def _fill_gaps() -> None:
    """Give a process that was started without standard streams some that lead nowhere: a socket must not become one."""
    while (gap := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(gap)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  for good
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _silence_stdout() -> None:
    """Keep the interpreter from complaining at its end about output that can't be written."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        if isinstance(sys.stdout, Output):
            sys.stdout.lost = None
