"""Says in words what a declared field takes: its type, its range, its default.

Runs as: a developer.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from enum import StrEnum
from typing import Any

from autodl_lib.contract.fields import MAX_INT, Param, param_of
from autodl_lib.contract.task import Task

_NAMES = {int: "integer", str: "string", bool: "boolean", float: "number", Task: "task"}


def type_words(hint: Any) -> str:
    """Return a type as JSON and TOML call it; values of an enum are code."""
    arguments = typing.get_args(hint)
    match typing.get_origin(hint):
        case types.UnionType | typing.Union:
            return " or ".join("null" if argument is type(None) else type_words(argument) for argument in arguments)
        case origin if origin is tuple:
            return f"list of {type_words(arguments[0])}"
        case origin if origin is dict:
            return f"object of {type_words(arguments[1])}"
        case _:
            pass
    if isinstance(hint, typing.NewType):
        return type_words(hint.__supertype__)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return f"one of {', '.join(f'`{member.value}`' for member in hint)}"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def range_words(declared: Param, hint: Any) -> str:
    """Return the range and unit of a number, such as `from 1 to 60 s`, or nothing."""
    numeric = any(kind in str(hint) for kind in ("int", "float"))
    low = _number(declared.minimum) if numeric and declared.minimum > -MAX_INT else ""
    high = _number(declared.maximum) if numeric and declared.maximum < MAX_INT else ""
    unit = f" {declared.unit}" if declared.unit else ""
    if low and high:
        return f"from {low} to {high}{unit}"
    if low or high:
        return f"at least {low}{unit}" if low else f"at most {high}{unit}"
    return f"in{unit}" if unit else ""


def value_words(value: Any) -> str:
    """Return a default as JSON and TOML write it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return f'"{value!s}"'
        case tuple():
            return f"[{', '.join(map(value_words, value))}]"
        case _:
            return str(value)


def field_words(field: dataclasses.Field[Any], hint: Any) -> str:
    """Return a field's type and range, such as `integer, from 1 to 1000`."""
    return ", ".join(filter(None, [type_words(hint), range_words(param_of(field), hint)]))


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"
