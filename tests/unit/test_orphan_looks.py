"""Looks for what workers have left behind: each end is followed by one, and many ends at once by one of all."""

from __future__ import annotations

import asyncio
import threading

import pytest

from autodl_lib.supervisor.workers import orphans, processes
from autodl_lib.supervisor.workers.starter import Starter


def test_ends_that_come_while_a_look_waits_share_it_and_one_that_comes_later_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    begun, go = threading.Event(), threading.Event()

    def end_orphans(*_: object) -> list[int]:
        nonlocal looks
        looks += 1
        begun.set()
        assert go.wait(45)
        return []

    async def run() -> None:
        starter = Starter()
        first = asyncio.ensure_future(starter.end_orphans())
        await asyncio.to_thread(begun.wait, 45)
        later = [asyncio.ensure_future(starter.end_orphans()) for _ in range(3)]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, *later)
        assert looks == 2, "what had begun was too early for the three"
        await starter.end_orphans()
        assert looks == 3
        starter.close()

    monkeypatch.setattr(processes, "forkserver_context", lambda: None)
    monkeypatch.setattr(orphans, "end_orphans", end_orphans)
    asyncio.run(run())
