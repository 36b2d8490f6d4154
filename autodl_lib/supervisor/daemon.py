"""The daemon: its parts, put together, started in order, and stopped in order.

Runs as: root (or the private daemon's user).  Talks to: everything below supervisor/.
Start: queue recovered, socket listening, then the pool. Stop: no new work, workers save their parts and
end, the queue is closed, the socket goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodl_lib import __version__
from autodl_lib.contract.errors import AutodlError, InternalError
from autodl_lib.contract.settings import Settings
from autodl_lib.contract.states import PENDING, TaskState
from autodl_lib.contract.task import Uid
from autodl_lib.privilege.accounts import find_account
from autodl_lib.privilege.landlock import confinement_words
from autodl_lib.store.store import Store
from autodl_lib.supervisor.clients.access import Access
from autodl_lib.supervisor.clients.dispatch import Dispatcher
from autodl_lib.supervisor.clients.listener import Listener
from autodl_lib.supervisor.handlers.context import Service
from autodl_lib.supervisor.housekeeping import Housekeeper, IdleExit
from autodl_lib.supervisor.network_watch import NetworkWatch
from autodl_lib.supervisor.runner import Runner
from autodl_lib.supervisor.scheduling.rate_limits import RateLimits
from autodl_lib.supervisor.scheduling.user_limits import UserLimits
from autodl_lib.supervisor.set_number import forget_number, number_at_start
from autodl_lib.supervisor.settings_file import read_settings
from autodl_lib.supervisor.state_dir import DATABASE
from autodl_lib.supervisor.systemd import ServiceManager, StatusLine
from autodl_lib.supervisor.workers.pool import Pool

STOP_TIMEOUT_S = 8.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a daemon is started with; `max_tasks_num` from the command line wins over the file's."""

    state_dir: Path
    config: Path
    config_required: bool
    settings: Settings
    max_tasks_num: int | None
    listening: socket.socket
    manager: ServiceManager
    idle_exit_s: float | None


class Daemon:
    """One run of the daemon, on the running loop."""

    def __init__(self, setup: Setup) -> None:
        """Open the queue.

        Raises: StoreUnusable.
        """
        self._setup = setup
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        settings = setup.settings
        self._store = Store(setup.state_dir / DATABASE, separate_numbers=os.geteuid() == 0)
        self._store.on_broken = self._give_up
        self._failure: AutodlError | None = None
        self._loop.set_exception_handler(_explain)
        self._users = UserLimits(settings)
        number = number_at_start(self._store.read, setup.max_tasks_num, settings.max_tasks_num)
        self._runner = Runner(self._store, settings, number, self._users)
        self._limits = RateLimits(settings, self._store.read.rate_limits(), self._users)
        self._pool = Pool(self._runner, self._store.tag, settings.transfer, self._limits)
        self._pool.worker_settings = settings.worker
        self._service = Service(self._store, self._runner, self._pool, settings, self._limits, self._users)
        self._dispatcher = Dispatcher(self._service)
        self._access = Access(settings.access, self._users.learn)
        self._listener = Listener(self._access, self._dispatcher)
        self._network = NetworkWatch(self._runner.network_came)
        self._housekeeper = Housekeeper(self._store, settings.history)
        self._runner.audit.on_change = self._housekeeper.changed
        self._learning: asyncio.Task[None] | None = None
        self._manager = setup.manager
        self._status = StatusLine(self._manager, self._status_words)

    async def run(self, say_ready: bool) -> None:
        """Serve until asked to stop; `say_ready` prints `ready` when the socket answers.

        Raises: AutodlError.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        interrupted = await self._store.write(lambda transaction: transaction.recover())
        await self._listener.start(self._setup.listening)
        logger.info(
            "autodl %s is ready: %d at once, %d tasks go on",
            __version__,
            self._runner.max_tasks_num,
            self._store.counters.pending(),
            extra={"event": "ready"},
        )
        to_folder = self._setup.settings.worker.confine_to_folder
        logger.info(confinement_words(to_folder=to_folder), extra={"event": "confinement"})
        if interrupted:
            logger.info("%d downloads were interrupted and go on", interrupted, extra={"event": "recovered"})
        if say_ready:
            _say_ready()
        starting = self._loop.create_task(self._start_pool())
        self._watch_idle()
        try:
            await self._stop.wait()
        finally:
            self._status.close()
            self._manager.stopping()
            self._manager.status("saving what is on its way")
            self._pool.stop_restarting()
            await asyncio.wait([starting], timeout=STOP_TIMEOUT_S)
            starting.cancel()
            await self._close()
        if self._failure is not None:
            raise self._failure

    def _give_up(self, failure: AutodlError) -> None:
        """The queue is broken: nothing can be promised any more, and another start may find it whole, or say more."""
        if self._failure is None:
            self._failure = failure
            logger.error("%s; autodl stops", failure, extra={"event": "store_broken"})
            self._stop.set()

    async def _learn_accounts(self, uids: list[Uid]) -> None:
        """Look up who has tasks: limits are by name and group."""
        for uid in uids:
            account = await asyncio.to_thread(find_account, uid)
            if account is not None:
                self._users.learn(account)

    async def _start_pool(self) -> None:
        await self._learn_accounts(self._store.counters.users_with(PENDING))
        while not self._stop.is_set():
            try:
                await self._pool.start()
            except (OSError, EOFError) as error:
                if self._stop.is_set():
                    return  # it was stopped while it started
                logger.error(
                    "the pool does not start: %s; trying again",
                    error or "a process of it died",
                    extra={"event": "pool_failed"},
                )
                self._manager.status("the pool does not start; trying again")
                await asyncio.sleep(1.0)
            else:
                self._runner.attach(self._pool)
                self._manager.ready()
                self._store.listen(lambda _: self._status.changed())
                self._status.changed()
                break
        self._housekeeper.start()
        self._network.start()

    def _watch_idle(self) -> None:
        timeout_s = self._setup.idle_exit_s
        if timeout_s is None:
            return

        def is_idle() -> bool:
            return not self._listener.connections and not self._store.counters.pending()

        def end() -> None:
            # Nobody may add a task to a daemon that is about to go and that nobody may start again.
            self._listener.accept_no_more()
            self._stop.set()

        idle = IdleExit(timeout_s, is_idle, end)
        self._listener.on_change = idle.check
        self._store.listen(lambda _: idle.check())
        idle.check()

    def _status_words(self) -> str:
        counts = self._store.counters.of(None)
        words = f"{counts[TaskState.DOWNLOADING]} running, {counts[TaskState.ENQUEUED]} queued"
        retrying = counts[TaskState.RETRYING]
        return f"{words}, {retrying} waiting for another try" if retrying else words

    def _reload(self) -> None:
        """SIGHUP: read the configuration again; a wrong one is said so and changes nothing."""
        with self._manager.reloading():
            self._read_settings()

    def _read_settings(self) -> None:
        try:
            settings = read_settings(self._setup.config, required=self._setup.config_required)
        except AutodlError as error:
            logger.error("the configuration is not reloaded: %s", error, extra={"event": "reload_failed"})
            return
        is_other_number = settings.max_tasks_num != self._service.settings.max_tasks_num
        self._service.settings = settings
        self._access.configure(settings.access)
        self._housekeeper.configure(settings.history)
        self._limits.configure(settings)  # and with it self._users
        self._learning = self._loop.create_task(self._learn_again())
        self._pool.configure(settings.transfer)
        self._pool.worker_settings = settings.worker
        self._runner.configure(settings)
        if self._setup.max_tasks_num is None and is_other_number:
            self._store.write(forget_number)
            self._runner.set_max_tasks(settings.max_tasks_num)
        logger.info("the configuration is reloaded", extra={"event": "reloaded"})

    async def _learn_again(self) -> None:
        await self._learn_accounts(self._users.known())
        self._pool.allotments.rates.limits_changed()
        self._runner.changed()

    async def _close(self) -> None:
        began = time.monotonic()
        self._dispatcher.stopping = True
        self._housekeeper.stop()
        self._network.close()
        await self._pool.close(STOP_TIMEOUT_S)
        self._service.watchers.close()
        await self._listener.close()
        self._runner.close()
        self._store.close()
        logger.info("autodl has stopped in %.1f s", time.monotonic() - began, extra={"event": "stopped"})


def _explain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what escaped from a callback: a sentence where it is one of our errors, or a connection that found no memory,
    else a defect in full.
    """
    error = context.get("exception")
    if isinstance(error, AutodlError) and not isinstance(error, InternalError):
        logger.error("%s", error, extra={"event": "callback_failed"})
    elif isinstance(error, MemoryError) and "transport" in context:
        logger.error("there is no memory left for a client, whose connection is closed", extra={"event": "no_memory"})
    else:
        loop.default_exception_handler(context)


def _say_ready() -> None:
    """Tell the client that started us that the socket answers, and let go of its pipe."""
    with contextlib.suppress(OSError):
        os.write(1, b"ready\n")
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
