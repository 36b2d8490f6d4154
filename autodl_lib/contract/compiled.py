"""Code for single dataclasses: what codec and light_dataclass do field by field, in one go for each of its own.

Runs as: supervisor and workers, for the messages of which thousands are made in a second; to compile takes a command
longer than it saves.  Talks to: nobody; no I/O.
Invariants: what a decoder takes, it takes as codec does; whatever is not plainly right, it leaves to codec, which takes
it after all or says what is wrong. No text but names of fields, which are our own, gets into the code.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from autodl_lib.contract.fields import Param, param_of

Decode = Callable[[Mapping[str, Any], str, int], Any]
"""From a document, what goes before names in messages, and how many of its members may be no fields, to an object."""
Encode = Callable[[Any], dict[str, Any]]

_MISSING = dataclasses.MISSING


def compile_init(cls: Any) -> Callable[..., None]:
    """Return an `__init__` for keyword arguments."""
    names: dict[str, Any] = {}
    parameters, lines = [], []
    for number, field in enumerate(dataclasses.fields(cls)):
        names[f"fill_{number}"] = _filler(cls, field.name)
        names[f"default_{number}"] = field.default
        parameters.append(field.name if field.default is _MISSING else f"{field.name}=default_{number}")
        lines.append(f"fill_{number}(self, {field.name})")
    head = f"def made(self, *, {', '.join(parameters)}):" if parameters else "def made(self):"
    init: Callable[..., None] = _compile(head, lines or ["pass"], names)
    return init


def compile_encode(cls: Any, to_json: Callable[[Any], Any]) -> Encode:
    """Return what turns a message into a JSON object; defaults are left out."""
    hints = typing.get_type_hints(cls)
    names: dict[str, Any] = {"kind": cls.type, "to_json": to_json}
    always, lines = ['"type": kind'], []
    for number, field in enumerate(dataclasses.fields(cls)):
        item = f"message.{field.name}"
        item = _written(item, hints[field.name])
        if field.default is _MISSING:
            always.append(f'"{field.name}": {item}')
            continue
        names[f"default_{number}"] = field.default
        lines.append(f"if message.{field.name} is not default_{number}:")
        lines.append(f'    document["{field.name}"] = {item}')
    body = [f"document = {{{', '.join(always)}}}", *lines, "return document"]
    encode: Encode = _compile("def made(message):", body, names)
    return encode


def compile_decode(
    cls: Any,
    slow: Callable[[Any, Mapping[str, Any], str, int], Any],
    refuse: Callable[[Any, Mapping[str, Any], str], None],
) -> Decode:
    """Return what builds an object from a JSON object.

    `slow` decodes the field of a number by itself, or says why it can't be; `refuse` says which names are wrong.
    """
    hints = typing.get_type_hints(cls)
    names: dict[str, Any] = {"cls": cls, "new": cls.__new__, "slow": slow, "refuse": refuse, "MISSING": _MISSING}
    lines = ["made = new(cls)", "get = document.get"]
    for number, field in enumerate(dataclasses.fields(cls)):
        names[f"fill_{number}"] = _filler(cls, field.name)
        lines.append(f'v = get("{field.name}", MISSING)')
        members: dict[str, Any] = {}
        names[f"names_{number}"] = members
        taken = _taken(hints[field.name], param_of(field), f"names_{number}", members)
        asked = f"v = slow(cls, document, context, {number})"
        if field.default is _MISSING and field.default_factory is _MISSING:
            lines += [*_if_not(taken, asked), f"fill_{number}(made, v)", "strange -= 1"]
            continue
        has_default = field.default is not _MISSING
        absent = f"default_{number}" if has_default else f"default_{number}()"
        names[f"default_{number}"] = field.default if has_default else field.default_factory
        lines += [f"if v is MISSING: v = {absent}", "else:", "    strange -= 1"]
        lines += [*(f"    {line}" for line in _if_not(taken, asked)), f"fill_{number}(made, v)"]
    lines += ["if strange: refuse(cls, document, context)", "return made"]
    decode: Decode = _compile("def made(document, context, strange):", lines, names)
    return decode


def _if_not(taken: tuple[str, str], asked: str) -> list[str]:
    """Return lines that take a value (or what stands for it) where a test is passed, and ask for it elsewhere."""
    test, value = taken
    if not test:
        return [asked]
    return [f"if {test}: v = {value}", f"else: {asked}"] if value != "v" else [f"if not ({test}): {asked}"]


def _taken(hint: Any, bounds: Param, members_name: str, members: dict[str, Any]) -> tuple[str, str]:
    """Return the test of a value `v` that can be taken without a further look, "" for none, and what it is taken as."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        [inner] = [argument for argument in typing.get_args(hint) if argument is not type(None)]
        test, value = _taken(inner, bounds, members_name, members)
        return (f"v is None or ({test})", value) if test and value == "v" else ("v is None", "v")
    if isinstance(hint, typing.NewType):
        return _taken(hint.__supertype__, bounds, members_name, members)
    if hint is bool:
        return "v is True or v is False", "v"
    if hint is int:
        return f"type(v) is int and {int(bounds.minimum)} <= v <= {int(bounds.maximum)}", "v"
    if hint is str:
        return f"type(v) is str and len(v) <= {bounds.max_length} and v.isascii()", "v"
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        members.update((member.value, member) for member in hint)
        return f"type(v) is str and v in {members_name}", f"{members_name}[v]"
    if typing.get_origin(hint) is tuple and bounds.min_items == 0:
        return "type(v) is list and not v", "()"
    return "", ""


def _written(item: str, hint: Any) -> str:
    """Return the code that turns a value into what JSON writes."""
    if _is_plain(hint):
        return item
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and _is_plain(arguments[0]):
        return f"list({item}) if type({item}) is tuple else to_json({item})"
    return f"None if {item} is None else to_json({item})" if type(None) in arguments else f"to_json({item})"


def _is_plain(hint: Any) -> bool:
    """Tell whether all values of a type are what JSON writes as they are."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return all(_is_plain(argument) for argument in typing.get_args(hint))
    if isinstance(hint, typing.NewType):
        return _is_plain(hint.__supertype__)
    return hint in (str, int, float, bool, type(None)) or (isinstance(hint, type) and issubclass(hint, StrEnum))


def _filler(cls: Any, name: str) -> Callable[[Any, Any], None]:
    """Return what sets a slot, which a frozen class refuses."""
    fill: Callable[[Any, Any], None] = getattr(cls, name).__set__
    return fill


def _compile(head: str, lines: list[str], names: dict[str, Any]) -> Any:
    source = "\n    ".join([head, *lines])
    exec(compile(source, f"<{__name__}>", "exec"), names)  # noqa: S102  as dataclasses does
    return names["made"]
