"""Starts processes from the forkserver, off the loop, and sees to it that there is a forkserver.

Runs as: the supervisor; what blocks runs on a thread of its own.
Talks to: multiprocessing's forkserver.
How it fails: a forkserver that has died is replaced at once (pidfd); one that does not answer is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from autodl_lib.privilege.first_code import WorkerStart, start_worker
from autodl_lib.supervisor.workers import orphans, processes
from autodl_lib.supervisor.workers.losses import STATUS_UNKNOWN
from autodl_lib.supervisor.workers.threads import on_thread

START_TIMEOUT_S = 20.0
_RESTART_DELAY_S = 0.5
_STATUS_TIMEOUT_S = 1.0

logger = logging.getLogger(__name__)


class Starter:
    """One forkserver at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = processes.forkserver_context()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starter")
        self._pids: set[int] = set()
        self._pidfd = -1
        self._look: asyncio.Future[list[int]] | None = None
        self._look_waits = False
        self._closing = False
        self._restarting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the forkserver, and watch it.

        Raises: OSError, EOFError.
        """
        orphans.become_reaper()
        if self._pidfd < 0:
            self._pidfd = await on_thread(self._thread, processes.ensure_forkserver)
            self._loop.add_reader(self._pidfd, self._ended)

    async def start_worker(self, start: WorkerStart) -> tuple[BaseProcess, Connection, int]:
        """Start a worker; return its process, the pipe for its orders, and its pidfd.

        Raises: OSError, EOFError.
        """
        reader, writer = self._context.Pipe(duplex=False)
        try:
            process, pidfd = await self.start_process(start_worker, f"worker-{start.uid}", start, reader)
        except (OSError, EOFError):
            writer.close()
            raise
        finally:
            reader.close()
        return process, writer, pidfd

    async def start_manager(self, serve: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection, int]:
        """Start the report queue's process; return it, the pipe on which it says that it is ready, its pidfd.

        Raises: OSError, EOFError.
        """
        reader, writer = self._context.Pipe(duplex=False)
        try:
            process, pidfd = await self.start_process(serve, "report-queue", *arguments, writer)
        except (OSError, EOFError):
            reader.close()
            raise
        finally:
            writer.close()
        return process, reader, pidfd

    async def start_process(self, target: Callable[..., None], name: str, *arguments: Any) -> tuple[BaseProcess, int]:
        """Start any process; return it and its pidfd.

        Raises: OSError, EOFError.
        """
        process = self._context.Process(target=target, name=name, args=arguments)

        def start() -> int:
            pidfd = processes.start(process)
            self._pids.add(process.pid or 0)
            return pidfd

        starting = on_thread(self._thread, start)
        starting.add_done_callback(_heed)
        try:
            return process, await asyncio.wait_for(asyncio.shield(starting), START_TIMEOUT_S)
        except TimeoutError:
            processes.kill_forkserver()
            raise OSError("the forkserver did not answer and was killed") from None

    async def exit_status(self, process: BaseProcess) -> int:
        """Return the exit status of a process that has ended, below 0 for a signal; 255 where nobody knows.

        Asked on the thread that starts processes, since multiprocessing looks after all of them there too. Its
        descriptors are closed: nothing more can be asked of the process.
        """

        def ask() -> int:
            process.join(_STATUS_TIMEOUT_S)
            self._pids.discard(process.pid or 0)  # its number is anybody's from now on, an orphan's too
            status = STATUS_UNKNOWN if process.exitcode is None else process.exitcode
            with contextlib.suppress(ValueError):  # it has not ended after all
                process.close()
            return status

        return await on_thread(self._thread, ask)

    async def end_orphans(self) -> None:
        """End what workers have left behind them; who asks while a look has not begun yet shares it."""
        if self._look_waits and self._look is not None:
            await asyncio.shield(self._look)
            return

        def end() -> list[int]:
            self._look_waits = False  # who asks from now on is too late for this one
            self._pids = set(filter(_exists, self._pids))
            return orphans.end_orphans(self._pids, processes.waited_for())

        self._look = None
        self._look_waits = True
        self._look = look = on_thread(self._thread, end)
        for pid in await asyncio.shield(look):
            logger.error("process %d was left behind by a worker and is killed", pid, extra={"event": "orphan_killed"})

    def stop_restarting(self) -> None:
        """The daemon stops: what ends from now on stays ended."""
        self._closing = True

    def close(self) -> None:
        """Stop watching; the forkserver ends with this process."""
        self._closing = True
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self._thread.shutdown(wait=False)

    def _ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if not self._closing:
            logger.warning("the forkserver ended; starting another", extra={"event": "forkserver_lost"})
            self._restarting = self._loop.create_task(self._restart())

    async def _restart(self) -> None:
        while not self._closing:
            try:
                await self.start()
            except (OSError, EOFError) as error:
                logger.error("the forkserver does not start: %s", error, extra={"event": "forkserver_lost"})
                await asyncio.sleep(_RESTART_DELAY_S)
            else:
                return


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _heed(starting: asyncio.Future[int]) -> None:
    """Who waited for it may have been cancelled, when the daemon stops: a failure is then no news."""
    if not starting.cancelled():
        starting.exception()
