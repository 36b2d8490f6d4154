"""The supervisor's part in a test of a worker: gives orders, awaits reports, checks that each was permitted.

AUTODL_TEST_PYTHON names another interpreter for the worker: the floor, with an older libcurl.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.assignments import assignment

from autodl_lib.contract.codec import decode_message, dumps, message_to_json
from autodl_lib.contract.worker_messages import (
    REPORTS,
    Assign,
    Configure,
    Discard,
    Discarded,
    Failed,
    Finished,
    Halted,
    Order,
    Publish,
    Ready,
    Report,
    Retire,
    Returned,
    TransferSettings,
)
from autodl_lib.contract.worker_states import LEASE_PERMITS, LeasePhase

_KINDS: dict[str, type[Any]] = {report.type: report for report in REPORTS}
_ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30.0

SETTINGS = TransferSettings(
    connect_timeout_s=10.0,
    stall_timeout_s=20.0,
    min_free_bytes=0,
    durable=True,
    max_redirects=5,
    user_agent="",
)


class WorkerHarness:
    """One worker process."""

    def __init__(
        self, environment: dict[str, str] | None = None, constants: dict[str, float] | None = None, **settings: Any
    ) -> None:
        """`constants`: other values of the worker's, by `module:NAME`."""
        orders_read, self._orders = os.pipe()
        self._reports, reports_write = os.pipe()
        python = os.environ.get("AUTODL_TEST_PYTHON", sys.executable)
        command = [python, "-W", "error", str(Path(__file__).with_name("worker_child.py"))]
        changed = [f"{name}={value}" for name, value in (constants or {}).items()]
        self.process = subprocess.Popen(
            [*command, str(orders_read), str(reports_write), *changed],
            pass_fds=(orders_read, reports_write),
            env={**os.environ, "PYTHONPATH": str(_ROOT), **(environment or {})},
            stderr=subprocess.PIPE,
        )
        os.close(orders_read)
        os.close(reports_write)
        self.seen: list[Report] = []
        self.auto_publish = True
        self._rest = b""
        self._phases: dict[str, LeasePhase] = {}
        self._leases = 0
        self.order(Configure(settings=dataclasses.replace(SETTINGS, **settings)))

    # --- orders ---

    def order(self, *orders: Order) -> None:
        """Send orders in one write."""
        for order in orders:
            match order:
                case Assign():
                    self._phases[order.lease] = LeasePhase.ASSIGNED
                case Publish():
                    self._phases.update(dict.fromkeys(order.leases, LeasePhase.PUBLISHING))
                case Discard():
                    self._phases[order.lease] = LeasePhase.DISCARDING
        data = b"".join(dumps(message_to_json(order)) for order in orders)
        while data:
            data = data[os.write(self._orders, data) :]

    def assignment(self, url: str, folder: Path | str, **fields: Any) -> Assign:
        """Make an assignment with a lease of its own."""
        self._leases += 1
        given = {"task_id": self._leases, "tag": f"db-{self._leases}", **fields}
        return assignment(url, folder, lease=f"lease-{self._leases}", **given)

    def assign(self, url: str, folder: Path | str, **fields: Any) -> Assign:
        """Send one assignment."""
        assign = self.assignment(url, folder, **fields)
        self.order(assign)
        return assign

    def close_orders(self) -> None:
        """Be a supervisor that died."""
        if self._orders >= 0:
            os.close(self._orders)
            self._orders = -1

    # --- reports ---

    def await_report(self, kind: type[Any], lease: str, *, such: Callable[[Any], bool] = lambda _: True) -> Any:
        """Return the first report of a kind for a lease, which may have come already."""

        def matches(report: Report) -> bool:
            return isinstance(report, kind) and report.lease == lease and such(report)

        for report in self.seen:
            if matches(report):
                return report
        return self.await_next(matches)

    def await_next(self, matches: Callable[[Report], bool]) -> Report:
        """Return the next report that matches; answers `ready` with `publish` unless told not to."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            batch = self._read(deadline)
            found = [report for report in batch if matches(report)]
            if found:
                return found[0]

    def await_end(self, lease: str) -> Report:
        """Return the report that ends a lease."""

        def ends(report: Report) -> bool:
            return report.lease == lease and isinstance(report, Finished | Failed | Halted | Returned | Discarded)

        for report in reversed(self.seen):
            if ends(report):
                return report
        return self.await_next(ends)

    def finish(self, assign: Assign) -> Report:
        """Await the end of an assignment, and give it again as often as a worker that is held up sends it back."""
        report = self.await_end(assign.lease)
        while isinstance(report, Returned):
            self._leases += 1
            assign = dataclasses.replace(assign, lease=f"lease-{self._leases}")
            self.order(assign)
            report = self.await_end(assign.lease)
        return report

    def reports_of(self, lease: str, kind: type[Any]) -> list[Any]:
        """Return all reports of a kind so far."""
        return [report for report in self.seen if report.lease == lease and isinstance(report, kind)]

    def _read(self, deadline: float) -> list[Report]:
        readable, _, _ = select.select([self._reports], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise AssertionError(f"the report did not come; seen: {self.seen[-10:]}")
        data = os.read(self._reports, 1 << 20)
        if not data:
            raise AssertionError(f"the worker is gone: {self._stderr()}; seen: {self.seen[-10:]}")
        *lines, self._rest = (self._rest + data).split(b"\n")
        reports = [decode_message(_KINDS, json.loads(line)) for line in lines]
        for report in reports:
            self._take(report)
        return reports

    def _take(self, report: Report) -> None:
        phase = self._phases[report.lease]
        following = LEASE_PERMITS[phase].get(report.type)
        assert following is not None, f"{report} is not permitted in {phase}"
        self._phases[report.lease] = following
        self.seen.append(report)
        if isinstance(report, Ready) and self.auto_publish:
            self.order(Publish(leases=(report.lease,)))

    # --- the end ---

    def wait_gone(self) -> int:
        """Wait until the process has ended; returns its exit status."""
        return self.process.wait(PATIENCE_S)

    def retire(self) -> None:
        """End the worker as a supervisor does, and see that it had nothing to complain about."""
        if self.process.poll() is None and self._orders >= 0:
            self.order(Retire())
        self.close_orders()
        try:
            self.wait_gone()
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self._reports)
        assert "Traceback" not in self._stderr()

    def _stderr(self) -> str:
        if self.process.stderr is None or self.process.stderr.closed:
            return ""
        with self.process.stderr as stream:
            return stream.read().decode(errors="replace")
