"""The orders pipe, read without ever waiting: newline-delimited JSON from the supervisor.

Runs as: the task's owner.  Talks to: the supervisor, which is trusted; a line that can't be read is a defect.
Invariants: `is_closed` after end of file: the supervisor is gone and so must the worker.
"""

from __future__ import annotations

import logging
import os

from autodl_lib.contract.codec import decode_message, loads
from autodl_lib.contract.errors import InvalidParams, ParseError
from autodl_lib.contract.worker_messages import ORDERS, Order

_READ_BYTES = 262144
_KINDS: dict[str, type[Order]] = {order.type: order for order in ORDERS}

logger = logging.getLogger(__name__)


class OrderPipe:
    """Orders as they come."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.is_closed = False
        self._rest = b""
        os.set_blocking(fd, False)

    def read(self) -> list[Order]:
        """Return every complete order that is there now."""
        try:
            data = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.is_closed = True
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [order for order in map(_decode, lines) if order is not None]


def _decode(line: bytes) -> Order | None:
    try:
        return decode_message(_KINDS, loads(line))
    except (ParseError, InvalidParams) as error:
        logger.error("an order can't be read", extra={"event": "order_unreadable", "reason": str(error)})
        return None
