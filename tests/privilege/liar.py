"""A hostile worker of a user named *liar*, and the lies by name; `lying_entry.py` says how it comes to be one."""

from __future__ import annotations

import json
import os
import xmlrpc.client
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LIES: dict[str, Callable[[Liar], None]] = {}


class Liar:
    """One hostile worker, which has been given a task."""

    def __init__(self, orders: Connection, reports: Connection, ident: str, key: str) -> None:
        self.orders, self.reports, self.ident, self.key = orders, reports, ident, key
        self.ask((None, "accept_connection", ("liar",), {}))
        self.say({"type": "bound", "lease": key})
        self.order: dict[str, Any] = {}
        data = b""
        while "lease" not in self.order:
            data += os.read(orders.fileno(), 65536)
            for line in data.splitlines():
                document = json.loads(line)
                if document.get("type") == "assign":
                    self.order = document
        self.lease = self.order["lease"]
        self.folder = Path(self.order["dir"])

    def ask(self, request: tuple[Any, ...]) -> bytes:
        self.reports.send_bytes(xmlrpc.client.dumps((request,), None, None, None, True).encode())
        return self.reports.recv_bytes()

    def put(self, text: Any) -> bytes:
        return self.ask((self.ident, "put", (text,), {}))

    def say(self, *reports: dict[str, Any], key: str | None = None) -> None:
        self.put(f'{{"worker":"{key or self.key}","reports":{json.dumps(list(reports))}}}')

    def report(self, kind: str, **fields: Any) -> dict[str, Any]:
        return {"type": kind, "lease": self.lease, **fields}

    def started(self, **fields: Any) -> dict[str, Any]:
        values = {"name": "x", "part": ".x.autodl-part", "bytes_done": 0, "bytes_total": 9}
        return self.report("started", **{**values, "http_status": 200, **fields})

    def ready(self, **fields: Any) -> dict[str, Any]:
        identity = {"inode": 1, "size_bytes": 1, "mtime_ns": 1}
        values = {"name": "x", "part": ".x.autodl-part", "identity": identity, "bytes_received": 1}
        return self.report("ready", **{**values, "http_status": 200, **fields})

    def progress(self, **fields: Any) -> dict[str, Any]:
        values = {"bytes_done": 1, "bytes_total": 9, "speed_bps": 1, "connections": 1}
        return self.report("progress", **{**values, **fields})

    def finished(self, **fields: Any) -> dict[str, Any]:
        return self.report("finished", **{"dest": "/etc/shadow", "size_bytes": 1, **fields})

    def tell(self, **found: Any) -> None:
        """Leave a note for the test, and end."""
        note = self.folder / "told.new"
        note.write_text(json.dumps(found))
        note.rename(self.folder / "told")
        os._exit(3)


def lie(act: Callable[[Liar], None]) -> Callable[[Liar], None]:
    LIES[act.__name__.replace("_", "-")] = act
    return act
