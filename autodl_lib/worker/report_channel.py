"""A worker's connection to the report queue: many reports in one `put`.

Runs as: the task's owner.  Talks to: the manager of the report queue, over a connection made before the drop.
Wire: requests of multiprocessing's managers in their XML form, (ident, method, args, kwargs) answered by
(kind, result); the reports are ASCII JSON text inside. No pickle in either direction.
How it fails: OSError or EOFError when the queue is gone; the worker then saves its parts and exits.
"""

from __future__ import annotations

import xmlrpc.client
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from autodl_lib.contract.codec import dumps, message_to_json
from autodl_lib.contract.worker_messages import MAX_REPORT_BYTES, Report

_MAX_REPLY_BYTES = 65536


class ReportChannel:
    """Puts reports into the queue; one thread only."""

    def __init__(self, connection: Connection, ident: str, key: str) -> None:
        """`ident` names the queue in its manager, `key` this worker in the pool.

        Raises: OSError, EOFError.
        """
        self._connection = connection
        self._ident = ident
        self._key = key
        self._request((None, "accept_connection", (key[:8],), {}))

    def put(self, reports: Sequence[Report]) -> None:
        """Queue reports, in order; returns when the queue has them.

        Raises: OSError, EOFError.
        """
        if not reports:
            return
        text = dumps({"worker": self._key, "reports": [message_to_json(report) for report in reports]}).decode("ascii")
        if len(text) > MAX_REPORT_BYTES and len(reports) > 1:
            middle = len(reports) // 2
            self.put(reports[:middle])
            self.put(reports[middle:])
        else:
            self._request((self._ident, "put", (text.rstrip("\n"),), {}))

    def _request(self, request: tuple[Any, ...]) -> None:
        text = xmlrpc.client.dumps((request,), None, None, None, True)
        self._connection.send_bytes(text.encode("ascii"))
        reply = xmlrpc.client.loads(self._connection.recv_bytes(_MAX_REPLY_BYTES))[0][0]
        if not isinstance(reply, list) or not reply or reply[0] != "#RETURN":
            raise OSError("the report queue refused a report")
