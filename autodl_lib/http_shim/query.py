"""The query of a URL as a request to the daemon, by the request's declaration.

Runs as: an unprivileged account.  Talks to: nobody; no I/O.
Invariants: a parameter is called as on the wire, a list is the same name several times; bounds are the codec's.
"""

from __future__ import annotations

import re
import types
import typing
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from autodl_lib.contract.codec import decode_fields
from autodl_lib.contract.errors import InvalidParams

T = TypeVar("T")

_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?", re.ASCII)
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_MAX_PARAMETERS = 1000


def request_from_query(request_type: type[T], query: str, given: dict[str, Any]) -> T:
    """Make a request of a query and of what the path gave.

    Raises: InvalidParams.
    """
    hints = typing.get_type_hints(request_type)
    values: dict[str, Any] = {}
    for name, text in _pairs(query):
        hint = hints.get(name)
        if hint is None or name in given:
            raise InvalidParams(f"unknown parameter {ascii(name[:80])[1:-1]}")
        inner = _without_none(hint)
        if typing.get_origin(inner) is tuple:
            values.setdefault(name, []).append(_value(name, text, typing.get_args(inner)[0]))
        elif name in values:
            raise InvalidParams(f"{name} is there more than once")
        else:
            values[name] = _value(name, text, inner)
    return decode_fields(request_type, {**values, **given})


def _pairs(query: str) -> list[tuple[str, str]]:
    if not query:
        return []
    try:
        return parse_qsl(
            query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except ValueError:
        raise InvalidParams("the query is NAME=VALUE with & between, percent-encoded UTF-8") from None


def _value(name: str, text: str, hint: Any) -> Any:
    if hint is bool:
        if text not in _FLAGS:
            raise InvalidParams(f"{name} must be true or false")
        return _FLAGS[text]
    if hint is int:
        if not _INTEGER.fullmatch(text):
            raise InvalidParams(f"{name} must be an integer")
        return int(text)
    if hint is float:
        if not _NUMBER.fullmatch(text):
            raise InvalidParams(f"{name} must be a number")
        return float(text)
    return text


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        [inner] = [argument for argument in typing.get_args(hint) if argument is not type(None)]
        return inner
    return hint
