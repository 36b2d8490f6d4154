"""Strict JSON for everything that crosses a process boundary: dataclasses in, dataclasses out.

Runs as: everyone.  Talks to: nobody; no I/O.
Invariants: decoding refuses unknown fields, missing fields, wrong types (a bool is no integer), NaN,
numbers out of range, duplicate keys, text that is no UTF-8 or holds lone surrogates, and nesting
beyond what JSON needs here; every refusal is an AutodlError with a sentence, never another exception.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from autodl_lib.contract.errors import InvalidParams, ParseError
from autodl_lib.contract.fields import Param, param_of

if TYPE_CHECKING:
    from autodl_lib.contract.compiled import Decode, Encode

PROTOCOL_VERSION = 1
MAX_LINE_BYTES = 4 * 1024 * 1024
"""The longest line of the wire, its newline included."""

T = TypeVar("T")
_Decode = Callable[[Any, str], Any]
_Fill = Callable[[Any, Any], None]


def loads(data: bytes | str) -> Any:
    """Parse one JSON text strictly.

    Raises: ParseError.
    """
    try:
        return _DECODER.decode(data.decode("utf-8") if isinstance(data, bytes) else data)
    except UnicodeDecodeError:
        raise ParseError("the line is not UTF-8") from None
    except RecursionError:
        raise ParseError("the JSON nests too deeply") from None
    except ValueError as error:
        raise ParseError(f"not JSON: {error}") from None


def dumps(value: Any) -> bytes:
    """Encode to one line of ASCII JSON, newline included."""
    return _ENCODER.encode(value).encode("ascii") + b"\n"


def to_json(value: Any) -> Any:
    """Turn a dataclass (of dataclasses, tuples, enums and plain values) into what `json` can write."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if dataclasses.is_dataclass(value):
        return {
            name: item if type(item := getattr(value, name)) in _PLAIN else to_json(item)
            for name in field_names(typing.cast(Any, type(value)))
        }
    if isinstance(value, (tuple, list)):
        return [item if type(item) in _PLAIN else to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    raise TypeError(f"no JSON for {type(value)}")


def decode_message(kinds: Mapping[str, type[T]], document: Any) -> T:
    """Decode one order or report, a JSON object whose `type` picks the dataclass from `kinds`.

    Raises: InvalidParams.
    """
    if not isinstance(document, dict):
        raise InvalidParams("a message is a JSON object")
    kind = document.get("type")
    message_type = kinds.get(kind) if isinstance(kind, str) else None
    if message_type is None:
        raise InvalidParams("a message of an unknown type")
    return _filled(message_type, document, "", len(document) - 1)


def message_to_json(message: Any) -> dict[str, Any]:
    """Turn an order or a report into the JSON object that decode_message reads; defaults are left out."""
    encode = _ENCODERS.get(type(message))
    if encode is not None:
        return encode(message)
    document: dict[str, Any] = {"type": message.type}
    for name, default in _field_defaults(typing.cast(Any, type(message))):
        item = getattr(message, name)
        if item is not default:
            document[name] = item if type(item) in _PLAIN else to_json(item)
    return document


def decode_fields(cls: type[T], document: Any, *, context: str = "") -> T:
    """Build a dataclass from a JSON object; `context` goes before field names in messages.

    Raises: InvalidParams.
    """
    if type(document) is not dict and not isinstance(document, Mapping):
        raise InvalidParams(f"{context.rstrip('.') or 'params'} must be an object")
    return _filled(cls, document, context, len(document))


def _filled(cls: type[T], document: Mapping[str, Any], context: str, strange: int) -> T:
    """Build a dataclass from an object that has at most `strange` members that are no fields."""
    decode_all = _DECODERS.get(cls)
    if decode_all is not None:
        made: T = decode_all(document, context, strange)
        return made
    return _filled_slowly(cls, document, context, strange)


def _filled_slowly(cls: type[T], document: Mapping[str, Any], context: str, strange: int) -> T:
    made = cls.__new__(cls)
    for name, decode, fill, default in _slots(typing.cast(Any, cls)):
        if name in document:
            fill(made, decode(document[name], context + name if context else name))
            strange -= 1
        elif default is dataclasses.MISSING:
            _refuse_names(cls, document, context)
        else:
            fill(made, default() if isinstance(default, type) else default)
    if strange:
        _refuse_names(cls, document, context)
    return made


def _refuse_names(cls: type[Any], document: Mapping[str, Any], context: str) -> NoReturn:
    """Say which name is unknown, or else which is missing."""
    slots = _slots(typing.cast(Any, cls))
    known = {name for name, *_ in slots}
    for key in document:
        if key not in known and not (key == "type" and hasattr(cls, "type")):
            raise InvalidParams(f"unknown parameter {ascii(context + str(key)[:80])[1:-1]}")
    missing = [name for name, _, _, default in slots if default is dataclasses.MISSING and name not in document]
    raise InvalidParams(f"missing parameter {context}{min(missing)}")


def prepare(cls: Any) -> None:
    """Work out now what decoding and encoding a dataclass takes, and of what it has in it: there will be many."""
    from autodl_lib.contract.compiled import compile_decode, compile_encode, compile_init

    if cls in _DECODERS:
        return
    field_names(cls)
    _field_defaults(cls)
    _slots(cls)
    for hint in typing.get_type_hints(cls).values():
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                prepare(part)
    cls.__init__ = compile_init(cls)
    if hasattr(cls, "type"):
        _ENCODERS[cls] = compile_encode(cls, to_json)
    _DECODERS[cls] = compile_decode(cls, _field_alone, _refuse_names)


def _field_alone(cls: type[Any], document: Mapping[str, Any], context: str, number: int) -> Any:
    """Decode one field of a dataclass, that of this number.

    Raises: InvalidParams.
    """
    name, decode, _, _ = _slots(typing.cast(Any, cls))[number]
    if name not in document:
        _refuse_names(cls, document, context)
    return decode(document[name], context + name if context else name)


@cache
def field_names(cls: Any) -> tuple[str, ...]:
    """Return the names of a dataclass's fields."""
    return tuple(field.name for field in dataclasses.fields(cls))


@cache
def _field_defaults(cls: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, field.default) for field in dataclasses.fields(cls))


@cache
def _slots(cls: Any) -> tuple[tuple[str, _Decode, _Fill, Any], ...]:
    """Return each field's name, decoder, slot, and default or what makes it.

    Slots are filled one by one: a call with all values by name would take as long again.
    """
    hints = typing.get_type_hints(cls)
    slots = []
    for field in dataclasses.fields(cls):
        decode = _decoder(hints[field.name], param_of(field))
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory
        slots.append((field.name, decode, getattr(cls, field.name).__set__, default))
    return tuple(slots)


def _decoder(hint: Any, bounds: Param) -> _Decode:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        [inner] = [argument for argument in arguments if argument is not type(None)]
        return _optional(_decoder(inner, bounds))
    if origin is tuple:
        return _list(_decoder(arguments[0], bounds), bounds)
    if isinstance(hint, typing.NewType):
        return _decoder(hint.__supertype__, bounds)
    if hint is bool:
        return _bool
    if hint is int:
        return _integer(bounds)
    if hint is float:
        return _float(bounds)
    if hint is str:
        return _string(bounds)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _enum(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _nested(hint)
    raise TypeError(f"no decoder for {hint!r}")


def _optional(inner: _Decode) -> _Decode:
    return lambda value, name: None if value is None else inner(value, name)


def _list(inner: _Decode, bounds: Param) -> _Decode:
    def decode(value: Any, name: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            _refuse(name, "must be a list")
        if len(value) > bounds.max_items:
            _refuse(name, f"has {len(value)} items, over the limit of {bounds.max_items}")
        if len(value) < bounds.min_items:
            _refuse(name, "must not be empty")
        return tuple([inner(item, name) for item in value])

    return decode


def _nested(cls: type[Any]) -> _Decode:
    def decode(value: Any, name: str) -> Any:
        return value if isinstance(value, cls) else decode_fields(cls, value, context=name + ".")

    return decode


def _bool(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        _refuse(name, "must be true or false")
    return value


def _integer(bounds: Param) -> _Decode:
    minimum, maximum = int(bounds.minimum), int(bounds.maximum)

    def decode(value: Any, name: str) -> int:
        if type(value) is not int:
            _refuse(name, "must be an integer")
        if not minimum <= value <= maximum:
            _refuse(name, f"must be from {minimum} to {maximum}")
        return int(value)

    return decode


def _float(bounds: Param) -> _Decode:
    def decode(value: Any, name: str) -> float:
        if type(value) is not float and type(value) is not int:
            _refuse(name, "must be a number")
        if not bounds.minimum <= value <= bounds.maximum:
            _refuse(name, f"must be from {bounds.minimum:g} to {bounds.maximum:g}")
        return float(value)

    return decode


def _string(bounds: Param) -> _Decode:
    def decode(value: Any, name: str) -> str:
        if not isinstance(value, str):
            _refuse(name, "must be a string")
        if len(value) > bounds.max_length:
            _refuse(name, f"is over {bounds.max_length} characters long")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            _refuse(name, "is not valid Unicode text")
        return value

    return decode


def _enum(cls: type[StrEnum]) -> _Decode:
    members = {member.value: member for member in cls}

    def decode(value: Any, name: str) -> StrEnum:
        member = members.get(value) if isinstance(value, str) else None
        if member is None:
            _refuse(name, f"must be one of {', '.join(members)}")
        return member

    return decode


def _refuse(name: str, why: str) -> NoReturn:
    raise InvalidParams(f"{name} {why}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has the same key twice")
    return result


# Made once: json.loads and json.dumps make them for each text.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object_without_duplicates)
_ENCODER = json.JSONEncoder(ensure_ascii=True, allow_nan=False, check_circular=False, separators=(",", ":"))
_PLAIN = frozenset({type(None), bool, int, float, str})
# Of what was prepared.
_DECODERS: dict[type[Any], Decode] = {}
_ENCODERS: dict[type[Any], Encode] = {}
