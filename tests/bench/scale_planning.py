"""What it costs to choose the next tasks from a queue on disk: the daemon's own runner, with a pool that does nothing.

Runs as: the bench, while the daemon is stopped.  Talks to: the daemon's database.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from support.accounts import User
from support.daemon import Daemon

from autodl_lib.contract.settings import Settings, TransferSection
from autodl_lib.contract.task import Uid
from autodl_lib.store.store import Store
from autodl_lib.supervisor.queue_holds import EVERYBODY
from autodl_lib.supervisor.runner import Runner
from autodl_lib.supervisor.scheduling.picture import WorkerView
from autodl_lib.supervisor.scheduling.rate_limits import RateLimits
from autodl_lib.supervisor.scheduling.user_limits import UserLimits
from autodl_lib.supervisor.workers.pool import Pool

_WORKERS = 10
_TIMES = 60


class _Pool(Pool):
    """A pool whose workers are as pictured, and which gives nobody anything."""

    handed_out = 0

    def __init__(self, runner: Runner, limits: RateLimits, workers: tuple[WorkerView, ...]) -> None:
        super().__init__(runner, "bench", TransferSection(), limits)
        self._pictured = workers

    @property
    def confines(self) -> bool:
        return False  # as if all workers were in the right folder

    @property
    def ready(self) -> bool:
        return True

    def views(self) -> tuple[tuple[WorkerView, ...], int]:
        return self._pictured, 0

    def assign(self, *_: Any, **__: Any) -> None:
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
        users_limits = UserLimits(settings)
        runner = Runner(store, settings, _WORKERS, users_limits)
        runner.holds.lift(EVERYBODY)
        limits = RateLimits(settings, store.read.rate_limits(), users_limits)
        pictures = {
            "all places free": (),
            "one place free": _busy(users, 1)[1:],
            "none free, each worker takes two more ahead": _busy(users[:1], 3),
            "its host is full": _busy(users, 1)[1:],
        }
        pools = {name: _Pool(runner, limits, workers) for name, workers in pictures.items()}
        _fill(pools["its host is full"])
        return {name: _time(runner, pool, [Uid(user.uid) for user in users]) for name, pool in pools.items()}
    finally:
        store.close()


def _fill(pool: _Pool) -> None:
    hosts = pool.allotments.hosts
    hosts.configure(1, 1)
    hosts.add("lease", "w1", ("127.0.0.1:1",), 1)
    hosts.balance({})


def _time(runner: Runner, pool: Any, users: list[Uid]) -> float:
    runner.pool = pool
    least = float("inf")
    for _ in range(_TIMES):
        runner._picture.forget(users)  # as if something had happened to tasks of each
        began = time.perf_counter()
        runner._plan()
        least = min(least, time.perf_counter() - began)
    runner.pool = None
    return 1e6 * least
