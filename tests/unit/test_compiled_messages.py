"""Messages that are prepared are made, read and written by code of their own: it does what the codec does."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from autodl_lib.contract import codec
from autodl_lib.contract.codec import dumps, loads, message_to_json, to_json
from autodl_lib.contract.compiled import compile_decode, compile_encode, compile_init
from autodl_lib.contract.errors import InvalidParams
from autodl_lib.contract.transfer_options import NO_OPTIONS, TransferOptions
from autodl_lib.contract.worker_messages import ORDERS, REPORTS, FileIdentity, TransferSettings

SETTINGS = TransferSettings(
    connect_timeout_s=1.0, stall_timeout_s=2.0, min_free_bytes=3, durable=True, max_redirects=4, user_agent="a"
)
CLASSES = (*ORDERS, *REPORTS, FileIdentity, TransferOptions, TransferSettings)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 16, 17, 2**53 - 1, 2**53, 2**63, -(2**63), 1.5, float("inf"), -0.0),
    *("", "a", "x" * 64, "x" * 65, "x" * 255, "x" * 256, "ö" * 64, "\ud800", "rename", "any", "auto", "disk"),
    *([], ["a"], [1], [1, 2], [1, "a"], ["\ud800"], [[]], {}, {"inode": 1, "size_bytes": 2, "mtime_ns": -3}),
    *({"inode": 1}, {"inode": True, "size_bytes": 2, "mtime_ns": 3}, to_json(NO_OPTIONS), to_json(SETTINGS)),
)


def outcome(decode: Callable[[dict[str, Any]], Any], document: dict[str, Any]) -> Any:
    try:
        return decode(document)
    except InvalidParams as error:
        return Refused(str(error))


@dataclasses.dataclass(frozen=True)
class Refused:
    """What was said of a document."""

    words: str


@pytest.mark.parametrize("cls", CLASSES)
def test_every_document_is_taken_or_refused_in_the_same_words(cls: type[Any]) -> None:
    dice = random.Random(7)
    compiled = compile_decode(cls, codec._field_alone, codec._refuse_names)

    def quickly(document: dict[str, Any]) -> Any:
        return compiled(document, "at.", len(document))

    def slowly(document: dict[str, Any]) -> Any:
        return codec._filled_slowly(cls, document, "at.", len(document))

    names = [field.name for field in dataclasses.fields(cls)]
    right: dict[str, Any] = {}
    for number, name in enumerate(names):
        for value in VALUES:
            document = {name: value}
            found = outcome(lambda document, number=number: codec._field_alone(cls, document, "", number), document)
            if not isinstance(found, Refused):
                right[name] = value
    assert not isinstance(outcome(quickly, right), Refused), "one of them is right"
    documents = [{**right, name: value} for name in names for value in VALUES]
    for _ in range(200):
        document = {name: dice.choice(VALUES) if dice.random() < 0.1 else right[name] for name in names}
        for name in dice.sample(names, min(len(names), dice.choice((0, 0, 1, 2)))):
            del document[name]
        documents.append({**document, **dict.fromkeys(("more", "other")[: dice.choice((0, 0, 0, 1, 2))], 1)})
    for document in documents:
        assert outcome(quickly, document) == outcome(slowly, document)


@pytest.mark.parametrize("cls", [*ORDERS, *REPORTS])
def test_every_message_is_written_alike(cls: type[Any]) -> None:
    encode = compile_encode(cls, to_json)
    fields = dataclasses.fields(cls)
    for values in itertools.islice(itertools.product(*([None, 1, "a", (), (1, 2)] for _ in fields)), 500):
        message = cls(**dict(zip([field.name for field in fields], values, strict=True)))
        assert loads(dumps(encode(message))) == loads(dumps(message_to_json(message)))


@pytest.mark.parametrize("cls", CLASSES)
def test_objects_are_made_alike(cls: type[Any]) -> None:
    made, init = cls.__new__(cls), compile_init(cls)
    needed = {field.name: object() for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING}
    init(made, **needed)
    assert made == cls(**needed)
    with pytest.raises(TypeError):
        init(made, **needed, more=1)
    if needed:
        with pytest.raises(TypeError):
            init(made, **dict(list(needed.items())[1:]))
