"""A light dataclass acts as Python's own: as that of `dataclasses`, with the same declaration."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from autodl_lib.contract import light_dataclass
from autodl_lib.contract.fields import param


def declared_with(dataclass: Any) -> tuple[Any, Any]:
    """Return a class and one that inherits from it."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Request:
        """A request."""

        url: str = param("what to fetch", max_length=9)
        label: str | None = None

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Add(Request):
        """A request for more."""

        ids: tuple[int, ...] = ()

    return Request, Add


CLASSES = [
    pytest.param(declared_with(module.dataclass), id=module.__name__) for module in (dataclasses, light_dataclass)
]


@pytest.mark.parametrize("classes", CLASSES)
def test_instances_are_what_was_given_and_the_defaults(classes: tuple[Any, Any]) -> None:
    request, add = classes
    assert (request(url="u").url, request(url="u").label) == ("u", None)
    assert (add(ids=(1,), label="l", url="u").ids, add(url="u").ids) == ((1,), ())
    assert dataclasses.replace(add(url="u"), ids=(2,)) == add(url="u", ids=(2,))
    assert [field.name for field in dataclasses.fields(add)] == ["url", "label", "ids"]


@pytest.mark.parametrize("classes", CLASSES)
def test_missing_unknown_and_nameless_arguments_are_refused(classes: tuple[Any, Any]) -> None:
    request, add = classes
    right = {"url": "u", "label": "l"}
    for wrong in ({}, {"label": "l"}, {"url": "u", "dir": "d"}, {"label": "l", "dir": "d"}, {**right, "dir": "d"}):
        with pytest.raises(TypeError):
            request(**wrong)
    with pytest.raises(TypeError):
        request("u")
    with pytest.raises(TypeError):
        add(label="l", ids=(), dir="d")


@pytest.mark.parametrize("classes", CLASSES)
def test_nothing_can_be_changed_or_added(classes: tuple[Any, Any]) -> None:
    for instance in (classes[0](url="u"), classes[1](url="u")):
        for name in ("url", "label", "other"):
            with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
                setattr(instance, name, "v")
        with pytest.raises(dataclasses.FrozenInstanceError):
            del instance.url
        assert not hasattr(instance, "__dict__")
        assert instance.url == "u"


@pytest.mark.parametrize("classes", CLASSES)
def test_instances_are_equal_and_hash_by_class_and_values(classes: tuple[Any, Any]) -> None:
    request, add = classes
    assert request(url="u") == request(url="u", label=None)
    assert hash(request(url="u")) == hash(request(url="u"))
    assert len({request(url="u"), request(url="u"), request(url="v"), add(url="u")}) == 3
    assert request(url="u") != declared_with(dataclasses.dataclass)[0](url="u")
    assert request(url="u") != ("u", None)


@pytest.mark.parametrize("classes", CLASSES)
def test_an_instance_shows_its_fields(classes: tuple[Any, Any]) -> None:
    assert repr(classes[1](url="u")).endswith("Add(url='u', label=None, ids=())")


def test_what_is_not_frozen_slotted_and_keyword_only_can_not_be_declared() -> None:
    dataclass: Any = light_dataclass.dataclass
    for wrong in ({"frozen": False}, {"slots": False}, {"kw_only": False}):
        with pytest.raises(TypeError):
            dataclass(**{"frozen": True, "slots": True, "kw_only": True, **wrong})
