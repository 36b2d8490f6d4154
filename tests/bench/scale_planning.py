"""What it costs to choose the next tasks from a queue on disk: the daemon's own runner, with a pool that does nothing.

Runs as: the bench, while the daemon is stopped.  Talks to: the daemon's database.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from support.accounts import User
from support.daemon import Daemon

from autodl_lib.contract.settings import Settings
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.store.store import Store
from autodl_lib.supervisor.runner import Runner
from autodl_lib.supervisor.scheduling.host_ledger import HostLedger
from autodl_lib.supervisor.scheduling.picture import WorkerView
from autodl_lib.supervisor.scheduling.user_limits import UserLimits

_WORKERS = 10
_TIMES = 60


@dataclass(slots=True)
class _Allotments:
    hosts: HostLedger = field(default_factory=HostLedger)


@dataclass(slots=True)
class _Pool:
    """As much of a pool as planning asks."""

    workers: tuple[WorkerView, ...]
    allotments: _Allotments = field(default_factory=_Allotments)
    live: dict[TaskId, Any] = field(default_factory=dict)
    ready: bool = True
    handed_out: int = 0

    def views(self) -> tuple[tuple[WorkerView, ...], int]:
        return self.workers, 0

    def leased(self) -> set[TaskId]:
        return set()

    def leases_of(self, _: Uid) -> list[Any]:
        return []

    def leased_by_user(self) -> Counter[Uid]:
        return Counter()

    def is_live(self, _: str) -> bool:
        return True

    def assign(self, *_: Any) -> None:
        self.handed_out += 1

    def spawn(self, *_: Any) -> None:
        self.handed_out += 1

    def retire(self, _: str) -> None:
        pass

    def share(self, _: Any) -> None:
        pass


def _busy(users: list[User], room: int) -> tuple[WorkerView, ...]:
    return tuple(
        WorkerView(key=f"w{n}", uid=Uid(users[n % len(users)].uid), load=1, room=room) for n in range(_WORKERS)
    )


def planning_us(daemon: Daemon, users: list[User]) -> dict[str, float]:
    """Return the microseconds of one plan, the least of some tries, for different pictures of the pool.

    The daemon is stopped for that, and started again.
    """
    daemon.stop()
    try:
        return asyncio.run(_measure(daemon, users))
    finally:
        daemon.start()
        with daemon.connect() as wire:
            wire.call("pause", all=True)


async def _measure(daemon: Daemon, users: list[User]) -> dict[str, float]:
    store = Store(daemon.state_dir / "queue.db", separate_numbers=True)
    try:
        settings = Settings()
        runner = Runner(store, settings, _WORKERS, UserLimits(settings))
        runner.holds.clear()
        pictures = {
            "all places free": _Pool(()),
            "one place free": _Pool(_busy(users, 1)[1:]),
            "none free, each worker takes two more ahead": _Pool(_busy(users[:1], 3)),
            "its host is full": _full(_Pool(_busy(users, 1)[1:])),
        }
        return {name: _time(runner, pool, [Uid(user.uid) for user in users]) for name, pool in pictures.items()}
    finally:
        store.close()


def _full(pool: _Pool) -> _Pool:
    hosts = pool.allotments.hosts
    hosts.configure(1, 1)
    hosts.add("lease", "w1", ("127.0.0.1:1",), 1)
    hosts.balance({})
    return pool


def _time(runner: Runner, pool: Any, users: list[Uid]) -> float:
    runner.pool = pool
    least = float("inf")
    for _ in range(_TIMES):
        runner._heads.forget(users)  # as if something had happened to tasks of each
        began = time.perf_counter()
        runner._plan()
        least = min(least, time.perf_counter() - began)
    runner.pool = None
    return 1e6 * least
