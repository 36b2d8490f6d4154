"""The codec: what goes in comes out, and whatever comes in, only its own errors come out."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_lib.contract.codec import decode_fields, decode_message, dumps, loads, message_to_json, to_json
from autodl_lib.contract.errors import AutodlError, InvalidParams, ParseError
from autodl_lib.contract.fields import Param, param_of
from autodl_lib.contract.request_lines import RequestRefused, decode_request
from autodl_lib.contract.requests.registry import REQUESTS
from autodl_lib.contract.task import Task, TaskError
from autodl_lib.contract.worker_messages import ORDERS, REPORTS

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def values_of(cls: Any) -> st.SearchStrategy[Any]:
    """Make dataclasses of any kind within their declared bounds."""
    hints = typing.get_type_hints(cls)
    fields = {field.name: value_of(hints[field.name], param_of(field)) for field in dataclasses.fields(cls)}
    return st.builds(cls, **fields)


def value_of(hint: Any, bounds: Param) -> st.SearchStrategy[Any]:
    if isinstance(hint, typing.NewType):
        return value_of(hint.__supertype__, bounds)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        [inner] = [argument for argument in typing.get_args(hint) if argument is not type(None)]
        return st.none() | value_of(inner, bounds)
    if typing.get_origin(hint) is tuple:
        items = st.lists(value_of(typing.get_args(hint)[0], bounds), min_size=bounds.min_items, max_size=5)
        return items.map(tuple)
    if hint is bool:
        return st.booleans()
    if hint is int:
        return st.integers(int(bounds.minimum), int(bounds.maximum))
    if hint is float:
        return st.floats(bounds.minimum, bounds.maximum)
    if hint is str:
        return text
    if issubclass(hint, StrEnum):
        return st.sampled_from(hint)
    return values_of(hint)


@pytest.mark.parametrize("request_type", REQUESTS, ids=lambda kind: kind.method)
@given(data=st.data())
def test_a_request_comes_out_as_it_went_in(request_type: Any, data: st.DataObject) -> None:
    request = data.draw(values_of(request_type))
    number = data.draw(st.integers(-(2**63), 2**63 - 1) | text)
    line = dumps({"jsonrpc": "2.0", "id": number, "method": request_type.method, "params": to_json(request)})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_request(line) == (number, request)


@pytest.mark.parametrize("message_type", [*ORDERS, *REPORTS], ids=lambda kind: kind.type)
@given(data=st.data())
def test_a_message_of_a_worker_comes_out_as_it_went_in(message_type: Any, data: st.DataObject) -> None:
    kinds = {kind.type: kind for kind in (*ORDERS, *REPORTS)}
    message = data.draw(values_of(message_type))
    assert decode_message(kinds, loads(dumps(message_to_json(message)))) == message


@given(data=st.data())
def test_a_task_comes_out_as_it_went_in(data: st.DataObject) -> None:
    task = data.draw(values_of(Task))
    assert decode_fields(Task, loads(dumps(to_json(task)))) == task


@given(st.binary(max_size=500))
def test_any_line_is_decoded_or_refused(line: bytes) -> None:
    with pytest.raises(RequestRefused):
        decode_request(line)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
)


@pytest.mark.parametrize("kind", [*REQUESTS, *ORDERS, *REPORTS, TaskError], ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_any_fields_are_decoded_or_refused(kind: Any, data: st.DataObject) -> None:
    names = [field.name for field in dataclasses.fields(kind)]
    document = data.draw(st.dictionaries(st.sampled_from(names) if names else text, json_values) | json_values)
    try:
        decoded = decode_fields(kind, document)
    except InvalidParams as error:
        assert 0 < len(str(error)) < 500  # noqa: PT017
    else:
        assert isinstance(decoded, kind)


@pytest.mark.parametrize("request_type", REQUESTS, ids=lambda kind: kind.method)
def test_an_unknown_parameter_is_refused_by_name(request_type: Any) -> None:
    with pytest.raises(InvalidParams, match="colour"):
        decode_fields(request_type, {"colour": 1})


@given(json_values.filter(lambda value: _is_finite(value)))
def test_loads_reads_what_json_writes(value: Any) -> None:
    assert loads(json.dumps(value)) == value


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a":-Infinity}'])
def test_loads_refuses_what_is_no_json_number(text: str) -> None:
    with pytest.raises(ParseError):
        loads(text)


def test_every_refusal_is_an_error_of_the_contract() -> None:
    for line in (b"\xff", b"[" * 10**5, b'{"a":1,"a":2}', b"1e", b"9" * 10**4):
        with pytest.raises(AutodlError):
            loads(line)


def _is_finite(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True
