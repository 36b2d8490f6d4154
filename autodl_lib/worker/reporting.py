"""Reports on their way out: buffered, so that many small files share one call.

Runs as: the task's owner.  Talks to: the report queue, through a ReportSender.
Invariants: reports leave in the order they were made; none waits longer than FLUSH_AFTER_S while the loop turns.
How it fails: OSError or EOFError of the sender means that the supervisor is gone; the worker then leaves.
"""

from __future__ import annotations

import time
from typing import Protocol

from autodl_lib.contract.worker_messages import Report

FLUSH_AFTER_S = 0.02
FLUSH_AT = 64


class ReportSender(Protocol):
    """The way to the supervisor."""

    def put(self, reports: list[Report]) -> None:
        """Deliver reports in order, blocking, in as many messages as they need.

        Raises: OSError, EOFError when nobody is there any more.
        """


class ReportBuffer:
    """Holds reports back for a moment."""

    def __init__(self, sender: ReportSender) -> None:
        self._sender = sender
        self._reports: list[Report] = []
        self._first_mono = 0.0

    def add(self, report: Report) -> None:
        """Take a report; never sends, so that a task's trouble and the queue's are not mistaken for each other."""
        if not self._reports:
            self._first_mono = time.monotonic()
        self._reports.append(report)

    def deadline_mono(self) -> float | None:
        """Return when `flush` is due, None when nothing waits."""
        if not self._reports:
            return None
        return self._first_mono + (FLUSH_AFTER_S if len(self._reports) < FLUSH_AT else 0.0)

    def flush(self) -> None:
        """Send everything.

        Raises: OSError, EOFError.
        """
        if not self._reports:
            return
        reports, self._reports = self._reports, []
        self._sender.put(reports)
