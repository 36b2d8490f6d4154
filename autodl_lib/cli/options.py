"""Derives click's options and arguments from the requests' declared fields.

Runs as: the caller.  Talks to: nobody; no I/O.
Invariants: spelling, help, metavar, range and default of an option are the field's; nothing is retyped.
A field with `cli` is an option, one with only a metavar is an argument, any other is not on the
command line.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import stat
import types
import typing
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import click

from autodl_lib.contract.fields import MAX_INT, Param, param_of

if TYPE_CHECKING:
    from autodl_lib.contract.requests.registry import Request

R = TypeVar("R", bound="Request")

_RATE = r"(\d+(?:\.\d+)?)\s*(?:([kmgt])i?)?(?:b?(?:/s)?)"
_RATE_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class Rate(click.ParamType):  # type: ignore[type-arg]
    """Bytes a second: 500K, 2M, 1.5MiB; K, M, G, T are powers of 1024."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(_RATE, str(value).strip(), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is not a rate such as 500K, 2M or 1.5MiB", param, ctx)
        rate: float = float(match[1]) * 1024 ** _RATE_POWER[(match[2] or "").lower()]
        if rate > MAX_INT:
            self.fail(f"{value!r} is more than a rate can be", param, ctx)
        return math.ceil(rate)  # 0 would be no limit


class Whole(click.IntRange):
    """An integer of a range; click's own name for it makes an odd message."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not re.fullmatch(r"\s*[-+]?[0-9]+\s*", value):
            self.fail(f"{value!r} is not a valid integer.", param, ctx)
        return super().convert(value, param, ctx)


class Seconds(click.FloatRange):
    """A finite number of seconds."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        converted = super().convert(value, param, ctx)
        if not math.isfinite(converted):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return converted


class FilePath(click.ParamType):  # type: ignore[type-arg]
    """A file of the caller's, made absolute from the current folder; one that can't be read is named at once.

    So is what can be read once only, such as a pipe: a worker reads it later, and again after a failure.
    """

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from autodl_lib.cli.destination import absolute

        text = str(value)
        if not text:
            self.fail("the name of the file must not be empty", param, ctx)
        path = absolute(os.path.expanduser(text))
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                is_regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        except OSError as error:
            self.fail(f"can't read {text}: {error.strerror}", param, ctx)
        if not is_regular:
            self.fail(f"{text} is a pipe or a device: save what it has in a file, and name that", param, ctx)
        return path


class GroupedOption(click.Option):
    """An option with a heading that `--help` shows it under; those without one come last."""

    def __init__(self, spelling: Sequence[str], *, group: str = "", **extra: Any) -> None:
        super().__init__(spelling, **extra)
        self.group = group


def request_parameters(request_type: type[Any], skip: frozenset[str] = frozenset()) -> list[click.Parameter]:
    """Make the click parameters of a request, but for the fields in `skip`."""
    hints = typing.get_type_hints(request_type)
    parameters: list[click.Parameter] = []
    own = request_type.__annotations__
    # A request's own come before those that it inherits.
    for field in sorted(dataclasses.fields(request_type), key=lambda field: field.name not in own):
        declared = param_of(field)
        if field.name in skip or not (declared.cli or declared.metavar):
            continue
        make = _option if declared.cli else _argument
        parameters.append(make(field, declared, hints[field.name]))
    return parameters


def make_request(request_type: type[R], values: Mapping[str, Any]) -> R:
    """Build the request from what click parsed; values of other parameters are left out."""
    names = {field.name for field in dataclasses.fields(request_type)}
    return request_type(**{name: value for name, value in values.items() if name in names})


def _option(field: dataclasses.Field[Any], declared: Param, hint: Any) -> click.Parameter:
    spelling = [field.name, *declared.cli]
    if hint is bool:
        return GroupedOption(spelling, group=declared.group, is_flag=True, help=declared.help)
    if _is_list(hint):
        kind = _type_of(typing.get_args(hint)[0], declared)
        return GroupedOption(
            spelling, group=declared.group, type=kind, multiple=True, metavar=declared.metavar, help=declared.help
        )
    default = None if field.default is dataclasses.MISSING else field.default
    shown = default not in (None, 0)
    return GroupedOption(
        spelling,
        group=declared.group,
        type=_type_of(hint, declared),
        default=default.value if isinstance(default, StrEnum) else default,
        show_default=shown,
        metavar=declared.metavar,
        help=declared.help,
    )


def _argument(field: dataclasses.Field[Any], declared: Param, hint: Any) -> click.Parameter:
    required = field.default is dataclasses.MISSING
    inner = _without_none(hint)
    if _is_list(inner):
        kind = _type_of(typing.get_args(inner)[0], declared)
        metavar = f"{declared.metavar}..." if required else f"[{declared.metavar}]..."
        return click.Argument([field.name], type=kind, nargs=-1, required=required, metavar=metavar)
    metavar = f"{declared.metavar}" if required else f"[{declared.metavar}]"
    return click.Argument([field.name], type=_type_of(inner, declared), required=required, metavar=metavar)


def _type_of(hint: Any, declared: Param) -> Any:
    hint = _without_none(hint)
    if declared.is_path:
        return FilePath()
    if declared.unit == "B/s":
        return Rate()
    if hint is int:
        return Whole(int(declared.minimum), int(declared.maximum))
    if hint is float:
        return Seconds(declared.minimum, declared.maximum)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return EnumChoice(hint)
    return click.STRING


class EnumChoice(click.ParamType):  # type: ignore[type-arg]
    """One of an enum's values; click's own Choice differs between 8.1 and 8.2."""

    name = "choice"

    def __init__(self, members: type[StrEnum]) -> None:
        self.members = {member.value: member for member in members}

    def get_metavar(self, *_: Any, **__: Any) -> str:
        return "[" + "|".join(self.members) + "]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> StrEnum:
        member = self.members.get(str(value))
        if member is None:
            self.fail(f"{value!r} is not one of {', '.join(self.members)}", param, ctx)
        return member


def _is_list(hint: Any) -> bool:
    return typing.get_origin(hint) is tuple


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        [inner] = [argument for argument in typing.get_args(hint) if argument is not type(None)]
        return inner
    return hint
