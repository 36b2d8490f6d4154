"""The table: all that a server may do, and what must come of it."""

from __future__ import annotations

from behaviour import Behaviour
from behaviours_bodies import BODIES, CONNECTIONS
from behaviours_heads import HEADS, NAMES, REDIRECTS
from behaviours_ranges import RANGES, VALIDATORS

BEHAVIOURS: tuple[Behaviour, ...] = (
    *RANGES,
    *VALIDATORS,
    *BODIES,
    *CONNECTIONS,
    *HEADS,
    *REDIRECTS,
    *NAMES,
)
