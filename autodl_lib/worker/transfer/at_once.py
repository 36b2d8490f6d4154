"""A small file that comes at once, right behind its response's head: one request, one look, one write.

Runs as: the task's owner, partly inside of libcurl's callbacks.  Talks to: a connection; whom it works for.
Nearly all small files come like that, and a transfer, which can do all the rest, would be most of what they cost. So
whatever is not plain (another status, no length, a larger body, an error, an order, nothing for GIVEN_S) is handed over
to one, with the request as it is and the bytes that it has brought.
Invariants: nothing is decided here but that a complete response of status 200 is the file.
How it fails: it doesn't; what fails was handed over before.
"""

from __future__ import annotations

from typing import Protocol

from autodl_lib.contract.task import OnConflict
from autodl_lib.contract.worker_messages import Assign
from autodl_lib.worker.files.control_file import Ranges
from autodl_lib.worker.network.connection import Answer, Connection, Connections
from autodl_lib.worker.network.request_options import Request
from autodl_lib.worker.network.response import Accept, judge
from autodl_lib.worker.network.response_head import ResponseHead
from autodl_lib.worker.network.verdicts import CurlResult
from autodl_lib.worker.transfer.transfer import Transfer

GIVEN_S = 0.05
"""So long, an answer may take: then it is something to be seen, and watched over."""
_MOST_BYTES = 256 * 1024


class AtOnceOwner(Protocol):
    """Who wants the file. Nothing of this ever raises."""

    def came_at_once(self, accepted: Accept, head: ResponseHead, pieces: list[bytes]) -> None:
        """Take the complete file."""

    def take_over(self) -> Transfer:
        """Return the transfer that takes over."""


def may_come_at_once(assign: Assign) -> bool:
    """Tell whether a task asks for nothing that has to be decided by the head of the first response."""
    options = assign.options
    is_one_source = not options.mirrors and bool(assign.connections) and assign.connections[0] > 0
    is_judged = options.size_bytes is not None or assign.on_conflict is OnConflict.FAIL
    return is_one_source and not is_judged and not assign.limit_rate_bps and assign.url[:4].lower() == "http"


class AtOnce:
    """One request; a connection's listener."""

    def __init__(self, owner: AtOnceOwner, connections: Connections) -> None:
        self.status: int | None = None
        self.received_bytes = 0
        self._owner = owner
        self._connections = connections
        self._connection: Connection | None = None
        self._begun_mono = 0.0
        self._accepted: Accept | None = None
        self._pieces: list[bytes] = []

    def start(self, request: Request, now: float) -> None:
        """Ask for the file.

        Raises: TaskFailed.
        """
        self._begun_mono = now
        self._connection = self._connections.send(request, self)

    def stop(self) -> None:
        """Stop without telling the owner."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.stop()
            self._connections.give_back(connection)

    def check(self, now: float) -> None:
        """Hand over what takes its time."""
        self.hand_over().check(now)

    def wake_mono(self) -> float:
        """Return when `check` is to be called."""
        return self._begun_mono + GIVEN_S

    def hand_over(self) -> Transfer:
        """Leave the request to a transfer."""
        transfer, connection = self._owner.take_over(), self._connection
        if connection is None:
            raise RuntimeError("no request is under way")
        self._connection = None
        transfer.take_over(connection, self._pieces, self._begun_mono)
        return transfer

    def ranges(self) -> Ranges | None:
        """Return which ranges are in the part file: nothing, until it is complete."""
        return None

    def bytes_done(self) -> int:
        """Return the file's bytes that are here."""
        return self.received_bytes

    def sole_source(self) -> int | None:
        """Return the source that brought all bytes, in one response."""
        return 0

    # --- what a connection tells (connection.Listener) ---

    def body_arrived(self, connection: Connection, data: bytes) -> Answer:
        """Keep bytes of a body, inside of libcurl."""
        if not self._pieces:
            self._accepted = _accepted(connection)
        received_bytes = self.received_bytes + len(data)
        if self._accepted is None or received_bytes > (self._accepted.end or 0):
            return self.hand_over().body_arrived(connection, data)
        self._pieces.append(data)
        self.received_bytes = received_bytes
        return Answer.TAKEN

    def basin_filled(self, _connection: Connection) -> Answer:
        """See connection.Listener; nothing is poured here."""
        return Answer.TAKEN

    def connection_stepped(self, _connection: Connection) -> None:
        """See connection.Listener; what is over at once needs no watching."""

    def connection_ended(self, connection: Connection, result: CurlResult) -> None:
        """Hear how the request ended."""
        accepted = self._accepted
        if accepted is None or result.code or self.received_bytes != accepted.end:
            self.hand_over().connection_ended(connection, result)
            return
        head = connection.head()
        self.status, self._connection = head.status, None
        self._connections.give_back(connection)
        pieces, self._pieces = self._pieces, []
        self._owner.came_at_once(accepted, head, pieces)


def _accepted(connection: Connection) -> Accept | None:
    """Return what a plain response of known, small length is; None for any other, and for what makes no sense."""
    if connection.has_left_http():
        return None
    try:
        judgement = judge(connection.head(), None)
    except Exception:  # noqa: BLE001  a transfer will come to the same, and say so
        return None
    is_small = isinstance(judgement, Accept) and judgement.end is not None and judgement.end <= _MOST_BYTES
    return judgement if is_small and isinstance(judgement, Accept) else None
