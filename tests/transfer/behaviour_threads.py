"""Runs the chosen cases of a module at the same time, since most of what they do is to wait for a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

_AT_ONCE = 8


def run_at_once(request: pytest.FixtureRequest, work: Callable[..., None]) -> Iterator[dict[str, Future[None]]]:
    """Yield the future of each test of this module that was chosen, by its name; `work` gets its parameters."""
    items: list[Any] = [
        item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")
    ]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield {item.name: pool.submit(work, **item.callspec.params) for item in items}
