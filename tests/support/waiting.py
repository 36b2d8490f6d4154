"""Waiting for a condition that no event announces: bounded, and clear about what did not come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 45.0
"""Long enough for a loaded machine; only a test that fails waits so long."""


class NeverCame(AssertionError):
    """What was waited for did not come."""


def wait_until(
    condition: Callable[[], T],
    what: str,
    *,
    timeout_s: float = PATIENCE_S,
    seen: Callable[[], object] | None = None,
) -> T:
    """Return the first true value of `condition`; `seen` tells what was there instead when it never comes.

    Raises: NeverCame.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            instead = f"; there was {seen()!r}" if seen is not None else ""
            raise NeverCame(f"waited {timeout_s:g} s in vain: {what}{instead}")
        time.sleep(0.01)


def wait_for_many(look: Callable[[], list[T]], at_least: int, what: str) -> list[T]:
    """Return the first list of `look` that has so many members.

    Raises: NeverCame.
    """
    found: list[T] = []

    def is_long_enough() -> bool:
        found[:] = look()
        return len(found) >= at_least

    wait_until(is_long_enough, f"{at_least} {what}", seen=lambda: found)
    return found
