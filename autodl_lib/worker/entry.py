"""Where a worker begins once it has become its user.

Runs as: the task's owner.  Talks to: nobody itself; hands its pipe and its report channel to the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection

from autodl_lib.contract.worker_messages import Bound
from autodl_lib.worker.main import run
from autodl_lib.worker.report_channel import ReportChannel


def start(
    orders: Connection, reports: Connection, queue_ident: str, key: str, confine: Callable[[int], None] | None
) -> int:
    """Report for duty and work until ordered to retire; return the exit status.

    `confine` takes from this process all writing outside of an open folder.
    """
    try:
        channel = ReportChannel(reports, queue_ident, key)
        channel.put([Bound(lease=key)])
    except (OSError, EOFError):
        return 0
    run(orders.fileno(), channel, confine)
    return 0
