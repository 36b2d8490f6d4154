"""How a field of a request or a setting is declared: its meaning, bounds and spellings, once.

Runs as: everyone.  Talks to: nobody; no I/O.
The codec checks bounds from here, click takes spellings and help from here, the manual too.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from autodl_lib.contract.light_dataclass import dataclass

MAX_INT = 2**53 - 1
"""The largest integer that every JSON reader keeps exact (RFC 8259, section 6)."""

METADATA_KEY = "param"


@dataclass(frozen=True, slots=True, kw_only=True)
class Param:
    """A field's meaning and bounds; `minimum` and `maximum` bound numbers and every item of a list.

    `is_path`: a file of the caller's; the command line makes it absolute. `group`: its heading in `--help`.
    """

    help: str
    cli: tuple[str, ...] = ()
    metavar: str | None = None
    unit: str | None = None
    minimum: float = -MAX_INT
    maximum: float = MAX_INT
    max_length: int = 4096
    max_items: int = 100_000
    min_items: int = 0
    secret: bool = False
    is_path: bool = False
    group: str = ""


_UNBOUNDED = Param(help="", max_length=MAX_INT, max_items=MAX_INT)


def param(meaning: str, /, *, default: Any = dataclasses.MISSING, **bounds: Any) -> Any:
    """Declare a dataclass field with its `Param`; `default` makes it optional on the wire."""
    metadata = {METADATA_KEY: Param(help=meaning, **bounds)}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def param_of(field: dataclasses.Field[Any]) -> Param:
    """Return the `Param` that a field was declared with, or one without bounds, as replies and orders have."""
    declared = field.metadata.get(METADATA_KEY)
    return declared if isinstance(declared, Param) else _UNBOUNDED
