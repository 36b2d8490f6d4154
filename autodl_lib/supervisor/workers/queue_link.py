"""The supervisor's link to the report queue: starts its process, drains it, starts another when it dies.

Runs as: the supervisor; `drain` waits on a thread.
Talks to: the manager's process (untrusted), the pool.
Invariants: a batch of reports is handed over only when the one before it is on disk, so reports wait in
the manager and not in the supervisor's memory, and come together in one commit when the disk is slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor

from autodl_lib.supervisor.workers.report_queue import QueueClient, serve_reports
from autodl_lib.supervisor.workers.starter import Starter
from autodl_lib.supervisor.workers.threads import on_thread, start_thread

_READY_TIMEOUT_S = 20.0
_RESTART_DELAY_S = 0.5
_SETTLE_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 20.0
_DRAIN_EVERY_S = 0.005
_DRAIN_FLOOD_EVERY_S = 0.04
_FLOOD_REPORTS = 4
_FLOOD_GROWTH = 1.5
_PAUSE_A_LEASE_S = 0.0001
"""What comes in a flood is taken together: the longer it lasts, the more of it. A flood is where a worker says several
things at a time, so it has more to do meanwhile: the fewer assignments there are, the sooner that is over, and what is
said at the end is waited for. The first text after a quiet moment is taken at once."""

logger = logging.getLogger(__name__)


class QueueLink:
    """One manager at a time; `address`, `key` and `ident` are what a new worker needs."""

    def __init__(
        self,
        starter: Starter,
        on_texts: Callable[[list[str]], Awaitable[None]],
        on_restart: Callable[[], None],
        leases_num: Callable[[], int],
    ) -> None:
        """`on_texts` takes what was drained and returns when it is on disk; `on_restart` hears of a death.

        `leases_num` says how many assignments workers have; it is asked on a thread.
        """
        self._starter = starter
        self._on_texts = on_texts
        self._on_restart = on_restart
        self._leases_num = leases_num
        self._loop = asyncio.get_running_loop()
        self._putter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="report-put")
        self._client: QueueClient | None = None
        self._pidfd = -1
        self._number = 0
        self._closing = False
        self._up_mono = 0.0
        self._marks: dict[str, asyncio.Event] = {}
        self.address = ""
        self.key = b""
        self.up = asyncio.Event()

    @property
    def ident(self) -> str:
        """The name of the queue's object in its manager."""
        return self._client.ident if self._client else ""

    async def start(self) -> None:
        """Start the manager's process and begin to drain.

        Raises: OSError, EOFError.
        """
        self._number += 1
        # A name of its own: what a killed daemon has started may still be about to bind the last one's.
        self.address = f"reports-{os.getpid()}-{self._number}.sock"
        self.key = secrets.token_bytes(32)
        secret = secrets.token_hex(16)
        process, reader, self._pidfd = await self._starter.start_manager(serve_reports, self.address, self.key, secret)
        self._loop.add_reader(self._pidfd, self._ended)

        def connect() -> QueueClient:
            with reader:
                if not reader.poll(_READY_TIMEOUT_S):
                    raise OSError("the report queue does not start")
                reader.recv_bytes(16)
            return QueueClient(self.address, self.key, secret)

        try:
            self._client = await on_thread(self._putter, connect)
            drain = threading.Thread(target=self._drain, args=(self._client,), name="report-drain", daemon=True)
            start_thread(drain)
        except (OSError, EOFError):
            self._client = None
            self._kill()
            raise
        if self._pidfd < 0 or self._closing:
            self._kill()
            raise OSError("the report queue ended at its start")
        self.up.set()
        self._up_mono = time.monotonic()
        logger.debug("report queue started", extra={"event": "queue_started", "pid": process.pid})

    async def settle(self) -> None:
        """Return when all that was put into the queue before this call has been handed over."""
        client = self._client
        if client is None or not self.up.is_set():
            return
        mark = secrets.token_hex(8)
        passed = self._marks[mark] = asyncio.Event()
        try:
            async with asyncio.timeout(_SETTLE_TIMEOUT_S):
                await on_thread(self._putter, lambda: client.put(mark))
                await passed.wait()
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            del self._marks[mark]

    async def check(self) -> None:
        """See whether the manager takes a text at all, and end one that does not: another takes its place."""
        client = self._client
        if client is None or not self.up.is_set():
            return
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                await on_thread(self._putter, lambda: client.put("check"))
        except (OSError, EOFError, TimeoutError) as error:
            if client is self._client:
                logger.warning("the report queue does not answer (%s)", error, extra={"event": "queue_hangs"})
                self._kill()

    def stop_restarting(self) -> None:
        """The daemon stops: what ends from now on stays ended."""
        self._closing = True

    def close(self) -> None:
        """End the manager."""
        self._closing = True
        self._putter.shutdown(wait=False)
        if self._client is not None:
            self._client.close()
        if self._pidfd >= 0:
            self._kill()
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        with contextlib.suppress(OSError):  # the next start removes it
            os.unlink(self.address)

    def _drain(self, client: QueueClient) -> None:
        """Thread: drain until the manager is gone."""
        try:
            drained_mono, pause_s = 0.0, _DRAIN_EVERY_S
            while client is self._client:
                pause_s = min(pause_s, max(_DRAIN_EVERY_S, self._leases_num() * _PAUSE_A_LEASE_S))
                time.sleep(max(0.0, drained_mono + pause_s - time.monotonic()))
                texts = client.drain()
                drained_mono = time.monotonic()
                is_flood = any(text.count('"type"') >= _FLOOD_REPORTS for text in texts)
                pause_s = min(_DRAIN_FLOOD_EVERY_S, pause_s * _FLOOD_GROWTH) if is_flood else _DRAIN_EVERY_S
                if texts:
                    asyncio.run_coroutine_threadsafe(self._hand_over(texts), self._loop).result()
        except (OSError, EOFError):
            pass
        except (RuntimeError, CancelledError):  # the loop is closed: the daemon has ended
            return
        except Exception:  # a defect: without this thread no report would ever be heard again
            logger.exception("internal error in taking reports", extra={"event": "defect"})
        if not self._closing:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._failed, client)

    async def _hand_over(self, texts: list[str]) -> None:
        await self._on_texts([text for text in texts if text not in self._marks])
        for text in texts:
            if text in self._marks:
                self._marks[text].set()

    def _failed(self, client: QueueClient) -> None:
        if client is self._client:
            self._kill()

    def _kill(self) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        was_up = self.up.is_set()
        self.up.clear()
        self._client = None
        if self._closing:
            return
        logger.warning("the report queue ended; starting another", extra={"event": "queue_lost"})
        if was_up:
            self._on_restart()
            self._restart_task = self._loop.create_task(self._restart())

    async def _restart(self) -> None:
        if time.monotonic() - self._up_mono < _RESTART_DELAY_S:
            await asyncio.sleep(_RESTART_DELAY_S)  # one that dies at once is not replaced in a circle
        while not self._closing:
            try:
                await self.start()
            except (OSError, EOFError) as error:
                logger.error("the report queue does not start: %s", error, extra={"event": "queue_lost"})
                await asyncio.sleep(_RESTART_DELAY_S)
            else:
                self._on_restart()
                return
