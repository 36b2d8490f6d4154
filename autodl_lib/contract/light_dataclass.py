"""`dataclass`, as in `dataclasses`, for the classes that every command loads: made without compiling anything.

Runs as: everyone.  Talks to: nobody; no I/O.
Python's own writes six methods for each class as text, and compiles that in every process that imports it: 0.4 ms a
class, a sixth of the time of a small command. Here all classes have the same methods, which look fields up by name.
Invariants: only frozen, slotted and keyword-only, as all data here is; for the type checker it is Python's own. What
`fields`, `replace` and `is_dataclass` say is the same. A field has a value as its default, or none.
Known limits: making an instance takes about as long; twice as long when few of many fields are given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

_FILLERS = "__light_fillers__"
_DEFAULTS = "__light_defaults__"


def _light(*, frozen: bool, slots: bool, kw_only: bool) -> Callable[[Any], Any]:
    if not (frozen and slots and kw_only):
        raise TypeError("a light dataclass is frozen, slotted and keyword-only")
    return _made_light


def _made_light(cls: Any) -> Any:
    cls.__init__ = _init
    cls.__setattr__ = _refuse_change
    cls.__delattr__ = _refuse_change
    cls.__eq__ = _is_equal
    cls.__hash__ = _hash
    cls.__repr__ = _repr
    made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=True)(cls)
    fields = dataclasses.fields(made)
    # The slots themselves: they set what __setattr__ refuses.
    setattr(made, _FILLERS, tuple((field.name, getattr(made, field.name).__set__) for field in fields))
    defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    setattr(made, _DEFAULTS, defaults)
    return made


def _init(self: Any, **values: Any) -> None:
    cls = type(self)
    fillers = cls.__light_fillers__
    if len(values) < len(fillers):
        values = {**cls.__light_defaults__, **values}
    if len(values) != len(fillers):
        raise TypeError(_what_is_wrong(cls, values))
    try:
        for name, fill in fillers:
            fill(self, values[name])
    except KeyError:
        raise TypeError(_what_is_wrong(cls, values)) from None


def _what_is_wrong(cls: Any, values: dict[str, Any]) -> str:
    names = {name for name, _ in cls.__light_fillers__}
    unknown, missing = sorted(values.keys() - names), sorted(names - values.keys())
    return f"{cls.__qualname__}() got unknown arguments {unknown} and lacks {missing}"


def _refuse_change(self: Any, name: str, *_: Any) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot change field {name!r}")


def _values(record: Any) -> tuple[Any, ...]:
    return tuple([getattr(record, name) for name, _ in type(record).__light_fillers__])


def _is_equal(self: Any, other: object) -> bool:
    return _values(self) == _values(other) if type(self) is type(other) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name, _ in type(self).__light_fillers__)
    return f"{type(self).__qualname__}({shown})"


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    dataclass = _light
