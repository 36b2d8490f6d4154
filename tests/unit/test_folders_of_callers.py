"""The folder of a task that begins with `~`, as the supervisor finds it."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from autodl_lib.supervisor.handlers import queueing


def test_names_are_looked_up_one_at_a_time_so_that_a_slow_database_keeps_one_thread_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    under_way = threading.Semaphore(1)
    seen: list[str] = []

    def find(name: str) -> Any:
        assert under_way.acquire(blocking=False), "another one is under way"
        seen.append(name)
        threading.Event().wait(0.001)
        under_way.release()
        return SimpleNamespace(home=f"/home/{name}")

    async def run() -> list[str]:
        monkeypatch.setattr(queueing, "find_account_by_name", find)
        call: Any = SimpleNamespace(
            service=SimpleNamespace(looking_up=asyncio.Lock()), caller=SimpleNamespace(home="/home/me")
        )
        return await asyncio.gather(*[queueing.folder_of(call, f"~u{number}/x/") for number in range(20)])

    assert asyncio.run(run()) == [f"/home/u{number}/x" for number in range(20)]
    assert len(seen) == 20
