"""The orders pipe, read without ever waiting: newline-delimited JSON from the supervisor.

Runs as: the task's owner.  Talks to: the supervisor, which is trusted; a line that can't be read is a defect.
Invariants: `is_closed` after end of file: the supervisor is gone and so must the worker.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from autodl_lib.contract.codec import decode_message, loads
from autodl_lib.contract.errors import InvalidParams, ParseError
from autodl_lib.contract.worker_messages import ORDERS, Assign, Order

_READ_BYTES = 65536
"""What a pipe holds; memory for more would be asked of the kernel for each read."""
_KINDS: dict[str, type[Order]] = {order.type: order for order in ORDERS}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableAssign:
    """An assignment that breaks the contract: all that is known is whom to tell."""

    lease: str


class OrderPipe:
    """Orders as they come."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.is_closed = False
        self._rest = b""
        os.set_blocking(fd, False)

    def read(self) -> list[Order | UnreadableAssign]:
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


def _decode(line: bytes) -> Order | UnreadableAssign | None:
    try:
        document = loads(line)
        return decode_message(_KINDS, document)
    except ParseError as error:
        reason, document = str(error), None
    except InvalidParams as error:
        reason = str(error)
    logger.error("an order can't be read", extra={"event": "order_unreadable", "reason": reason})
    if isinstance(document, dict) and document.get("type") == Assign.type and isinstance(document.get("lease"), str):
        return UnreadableAssign(lease=document["lease"])
    return None
