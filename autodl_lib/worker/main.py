"""A worker's loop: orders in, bytes to disk, reports out; no thread of it ever waits for two things.

Runs as: the task's owner, for good.  Talks to: the supervisor (orders pipe, report queue), servers, the disk.
One epoll over the orders pipe, libcurl's sockets, the sync thread's eventfd and a pipe for signals; what is due by
time alone bounds its wait. Everything is imported at the top: the worker may not be able to read Python's folders.
Invariants: end of file on the orders pipe, SIGTERM, or a report queue that is gone: part files are saved, and the
worker leaves; SIGINT and SIGHUP are for the supervisor.
How it fails: a defect in one task fails that task (see session); one in the loop ends the worker, which is `lost`.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import select
import signal
import time
from collections.abc import Callable

from autodl_lib.contract.settings import TransferSection
from autodl_lib.contract.worker_messages import TransferSettings
from autodl_lib.worker.backlog import Backlog
from autodl_lib.worker.files.folder import Folders
from autodl_lib.worker.network.connection import Connections
from autodl_lib.worker.network.engine import Engine
from autodl_lib.worker.orders import OrderPipe
from autodl_lib.worker.pulse import Facilities
from autodl_lib.worker.reporting import ReportBuffer, ReportSender
from autodl_lib.worker.sync_thread import SyncThread

_COLLECT_AFTER = 20_000
"""Objects between collections of cycles: there are hardly any, and looking for them costs every small file."""

_HELD_UP_S = 0.01
"""Who answers events for so long was held up, by the disk or by other processes."""

logger = logging.getLogger(__name__)


def run(orders_fd: int, reports: ReportSender, confine: Callable[[int], None] | None) -> None:
    """Obey orders until told to leave or left alone. For a process's main thread; `confine` as in entry."""
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    Worker(orders_fd, reports, confine).run()


def default_settings() -> TransferSettings:
    """Return what is obeyed until `configure` comes."""
    section = TransferSection()
    return TransferSettings(
        connections=section.connections,
        connect_timeout_s=section.connect_timeout_s,
        stall_timeout_s=section.stall_timeout_s,
        min_free_bytes=section.min_free_bytes,
        durable=section.durable,
        max_redirects=section.max_redirects,
        user_agent=section.user_agent,
    )


class Worker:
    """Everything of one worker process."""

    def __init__(self, orders_fd: int, sender: ReportSender, confine: Callable[[int], None] | None) -> None:
        self._epoll = select.epoll()
        self._orders = OrderPipe(orders_fd)
        self._engine = Engine(self._epoll)
        self._sync = SyncThread()
        self._reports = ReportBuffer(sender)
        self._signal_fd, self._signal_write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._terminated = False
        self._backlog = Backlog(
            Facilities(
                connections=Connections(self._engine),
                folders=Folders(confine),
                sync=self._sync,
                reports=self._reports,
                settings=default_settings(),
            )
        )
        for fd in (orders_fd, self._sync.event_fd, self._signal_fd):
            self._epoll.register(fd, select.EPOLLIN)

    def run(self) -> None:
        """Turn the loop until the end."""
        self._take_signals()
        try:
            while not self._is_over():
                self._turn()
        except (OSError, EOFError) as error:
            # The report queue is gone: only its errors come this far (see session for a task's own).
            logger.warning("the report queue is gone", extra={"event": "queue_gone", "reason": str(error)})
            self._orders.is_closed = True
        self._leave()

    def _turn(self) -> None:
        """Wait for something to happen and answer it."""
        self._engine.update_watches()
        before = time.monotonic()
        ready = self._epoll.poll(self._patience_s())
        woken = time.monotonic()
        self._engine.waited_s += woken - before
        self._answer(ready)
        now = time.monotonic()
        if now - woken > _HELD_UP_S:  # what came meanwhile is no fault of those whose time would be up now
            self._engine.update_watches()
            self._answer(self._epoll.poll(0))
            now = time.monotonic()
        self._engine.run_due(now)
        while self._backlog.step(now):
            now = time.monotonic()
            self._engine.run_due(now)
        self._sync.release(now, at_once=self._backlog.is_resting())
        flush_at = self._reports.deadline_mono()
        if flush_at is not None and (now >= flush_at or self._has_nothing_to_do()):
            self._reports.flush()

    def _answer(self, ready: list[tuple[int, int]]) -> None:
        """Do what events ask for."""
        for fd, events in ready:
            if self._engine.owns(fd):
                self._engine.handle(fd, events)
            elif fd == self._orders.fd:
                self._backlog.obey(self._orders.read())
            elif fd == self._sync.event_fd:
                self._sync.collect()
                self._backlog.settle_all()
            elif fd == self._signal_fd:
                self._drain_signals()

    def _patience_s(self) -> float:
        due = self._backlog.deadline_mono()
        for part in (self._engine, self._reports, self._sync):
            deadline = part.deadline_mono()
            if deadline is not None and deadline < due:
                due = deadline
        return -1.0 if math.isinf(due) else max(0.0, due - time.monotonic())

    def _has_nothing_to_do(self) -> bool:
        return self._backlog.is_resting() and not self._sync.is_busy()

    def _is_over(self) -> bool:
        if self._orders.is_closed or self._terminated:
            return True
        return self._backlog.is_retiring and self._backlog.is_empty() and not self._sync.is_busy()

    def _leave(self) -> None:
        self._sync.stop()
        self._backlog.leave()
        if not self._orders.is_closed:
            with contextlib.suppress(OSError, EOFError):
                self._reports.flush()
        self._epoll.close()

    def _take_signals(self) -> None:
        signal.set_wakeup_fd(self._signal_write_fd, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_terminate)
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)

    def _on_terminate(self, _number: int, _frame: object) -> None:
        self._terminated = True

    def _drain_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._signal_fd, 4096)
