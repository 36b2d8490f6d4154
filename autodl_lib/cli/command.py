"""What all commands have in common: the options --socket, --json and --version, and a request to fill.

Runs as: the caller.  Talks to: stdout, for --version.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from autodl_lib import __version__
from autodl_lib.cli.options import make_request, request_parameters
from autodl_lib.cli.session import Session

if TYPE_CHECKING:
    from autodl_lib.contract.requests.registry import Request

R = TypeVar("R", bound="Request")


class Command(click.Command):
    """A command whose `--help` shows options under their headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each heading that has options."""
        from autodl_lib.contract.transfer_options import OptionGroup

        sections: dict[str, list[tuple[str, str]]] = {group.value: [] for group in OptionGroup}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(parameter, "group", "") or "Options", []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def common_parameters() -> list[click.Parameter]:
    """Make the options that the group and every command take."""
    return [
        click.Option(
            ["--socket"],
            metavar="PATH",
            expose_value=False,
            callback=_keep_socket,
            help="the daemon's socket [else $AUTODL_SOCKET, /run/autodl/autodl.sock, a private daemon's]",
        ),
        click.Option(["--json"], is_flag=True, expose_value=False, callback=_keep_json, help="print one JSON document"),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="print the version",
        ),
    ]


def make_command(
    name: str, description: str, parameters: Sequence[click.Parameter], run: Callable[..., int | None], **extra: Any
) -> click.Command:
    """Make a command that calls `run(session, **values)` and exits with what that returns."""

    def callback(**values: Any) -> int | None:
        # A command may run for days and list a million tasks; what is loaded by now needs no look.
        gc.freeze()
        gc.enable()
        session = click.get_current_context().find_object(Session)
        if session is not None and session.loaded is not None:
            session.loaded()
        return run(session, **values)

    return Command(
        name,
        callback=callback,
        params=[*parameters, *common_parameters()],
        help=description,
        context_settings={"help_option_names": ["-h", "--help"], **extra},
    )


def request_command(
    name: str,
    request_type: type[R],
    run: Callable[[Session, R], int | None],
    *,
    note: str = "",
    **extra: bool,
) -> click.Command:
    """Make a command whose parameters are those of a request; `note` goes below the request's own sentence."""

    def run_with_values(session: Session, **values: Any) -> int | None:
        return run(session, make_request(request_type, values))

    return make_command(name, described(request_type, note), request_parameters(request_type), run_with_values, **extra)


def described(request_type: type[Any], note: str = "") -> str:
    """Return a request's description for `--help`."""
    # Backticks are for the manual; on a terminal they are noise.
    return f"{request_type.__doc__ or ''}\n\n{note}".strip().replace("`", "'")


def _keep_socket(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.find_object(Session).socket = value  # type: ignore[union-attr]


def _keep_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.find_object(Session).json = True  # type: ignore[union-attr]


def _show_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"autodl {__version__}")
        context.exit()
