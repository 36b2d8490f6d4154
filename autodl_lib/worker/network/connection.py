"""One easy handle: a request on it, and what comes back.

Runs as: the task's owner.  Talks to: a server, through the engine.
Invariants: a listener's exception never reaches libcurl's callbacks' caller, which would only print it; a handle
that carried credentials is not used for another request.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

import pycurl

from autodl_lib.contract.failures import FailureCode
from autodl_lib.worker.network.engine import MOST_WARM, Engine
from autodl_lib.worker.network.request_options import Request, new_handle, set_options
from autodl_lib.worker.network.response_head import HeadReader, ResponseHead
from autodl_lib.worker.network.tap import Tap
from autodl_lib.worker.network.verdicts import CurlResult, TaskFailed

_STOP = 0
"""What a callback returns to end a request: a length that is not the one it was given."""
BASIN_PIECES = 32
"""So many pieces of 16 KiB stay in a processor's cache between libcurl's copy and the kernel's."""

_CONTENT_LENGTH = getattr(pycurl, "CONTENT_LENGTH_DOWNLOAD_T", pycurl.CONTENT_LENGTH_DOWNLOAD)


class Answer(Enum):
    """What a listener says to bytes of a body: had them, wants no more, or wants them again after `go_on`."""

    TAKEN = "taken"
    STOP = "stop"
    LATER = "later"


_TO_LIBCURL = {Answer.TAKEN: None, Answer.STOP: _STOP, Answer.LATER: pycurl.WRITEFUNC_PAUSE}


class Listener(Protocol):
    """Who wants what a connection brings."""

    def body_arrived(self, connection: Connection, data: bytes) -> Answer:
        """Take bytes of the body, inside of libcurl. Never raises."""

    def basin_filled(self, connection: Connection) -> Answer:
        """Empty the list that the body is poured into, inside of libcurl. Never raises."""

    def connection_stepped(self, connection: Connection) -> None:
        """Hear that something may have happened, outside of libcurl."""

    def connection_ended(self, connection: Connection, result: CurlResult) -> None:
        """Hear how the request ended."""


class Connection:
    """Serves one request after the other."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = HeadReader()
        self._body_bytes = 0
        self._basin: list[bytes] | None = None
        self._tap: Tap | None = None
        self._tapper: Callable[[Tap], None] | None = None
        self._request: Request | None = None
        self._listener: Listener | None = None
        self._easy = self._new_easy()

    def start(self, request: Request, listener: Listener) -> None:
        """Send a request.

        Raises: pycurl.error, when libcurl doesn't take an option.
        """
        before = self._request
        if before is not None and before.has_credentials():
            self._easy.close()
            self._easy = self._new_easy()
            before = None
        self._body_bytes = 0
        self._basin = None
        self._reader.reset()
        self._listener = listener
        self._request = request
        set_options(self._easy, request, before)
        self._engine.add(self._easy, self, needs_nudges=request.url[:3].lower() == b"ftp")

    def tell(self, listener: Listener) -> None:
        """Tell somebody else from now on what comes, if anything still does."""
        if self._listener is not None:
            self._listener = listener

    def stop(self) -> None:
        """End the request now; the listener is not told."""
        self._listener = self._basin = None
        self._close_tap()
        self._engine.remove(self._easy)

    def tap(self, tapper: Callable[[Tap], None]) -> bool:
        """Have `tapper` told when more of the body is there for it to take; False where it comes as before.

        Outside of libcurl, when all that has come was taken. Whoever has tapped a body must `stop` at its end.
        """
        self._tap = self._engine.tap(self._easy)
        self._tapper = tapper
        return self.is_tapped()

    def is_tapped(self) -> bool:
        """Tell whether the body comes past libcurl."""
        return self._tap is not None

    def put_off(self) -> None:
        """Let a tapped body wait for `go_on`."""
        if self._tap is not None:
            self._engine.unwatch(self._tap)

    def bytes_since_redirect(self) -> int:
        """Return those of `bytes_seen` that came after the last redirect was followed."""
        return self.bytes_seen() - self._reader.redirected_bytes()

    def pour_into(self, basin: list[bytes] | None) -> None:
        """From now on append the body to a list, and ask the listener only when BASIN_PIECES are in it.

        None: ask the listener each time.
        """
        self._basin = basin

    def bytes_seen(self) -> int:
        """Return the bytes of heads and bodies of the present request."""
        return self._reader.size_bytes + self._body_bytes

    def go_on(self) -> None:
        """Let the body come that was put off."""
        if self._tap is not None:
            self._engine.watch(self._tap)
        else:
            self._easy.pause(pycurl.PAUSE_CONT)

    def head(self) -> ResponseHead:
        """Return the last response head, as far as it has come."""
        return self._reader.head()

    def has_left_http(self) -> bool:
        """Tell whether a redirect led from HTTP to FTP."""
        return self._reader.has_left_http()

    def announced_length(self) -> int | None:
        """Return how much libcurl expects to come, None when it can't know. Outside of libcurl only."""
        length = int(self._easy.getinfo(_CONTENT_LENGTH))
        return length if length >= 0 else None

    def file_time(self) -> int | None:
        """Return when the file of FTP or SFTP was last changed, None when the server didn't say.

        Libcurl asks before it begins with the body. Outside of libcurl only.
        """
        at_s = int(self._easy.getinfo(pycurl.INFO_FILETIME))
        return at_s if at_s >= 0 else None

    def request_stepped(self) -> None:
        """See engine.Requester."""
        if self._listener is not None:
            self._listener.connection_stepped(self)

    def body_waits(self) -> None:
        """See engine.Requester."""
        if self._tap is not None and self._tapper is not None:
            self._tapper(self._tap)

    def request_ended(self, code: int, message: str) -> None:
        """See engine.Requester."""
        listener, self._listener = self._listener, None
        self._close_tap()
        if listener is None:
            return
        status = int(self._easy.getinfo(pycurl.RESPONSE_CODE)) or None
        os_errno = int(self._easy.getinfo(pycurl.OS_ERRNO)) if code else 0
        listener.connection_ended(self, CurlResult(code=code, message=message, os_errno=os_errno, status=status))

    def _close_tap(self) -> None:
        if self._tap is not None:
            self._engine.close(self._tap)
        self._tap = self._tapper = None

    def _new_easy(self) -> pycurl.Curl:
        easy = new_handle()
        easy.setopt(pycurl.HEADERFUNCTION, self._reader.feed)
        easy.setopt(pycurl.WRITEFUNCTION, self._take_body)
        return easy

    def _take_body(self, data: bytes) -> int | None:
        if self._basin is not None:  # libcurl comes in pieces of 16 KiB: these lines are what a large file costs
            self._body_bytes += len(data)
            self._basin.append(data)
            if len(self._basin) < BASIN_PIECES:
                return None
            return _STOP if self._listener is None else _TO_LIBCURL[self._listener.basin_filled(self)]
        if self._listener is None:
            return _STOP
        self._body_bytes += len(data)
        answer = self._listener.body_arrived(self, data)
        if answer is Answer.LATER:  # they come again
            self._body_bytes -= len(data)
        return _TO_LIBCURL[answer]


class Connections:
    """Connections at rest, to be used again."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._free: list[Connection] = []

    def take(self) -> Connection:
        """Return one that nobody uses."""
        return self._free.pop() if self._free else Connection(self._engine)

    def send(self, request: Request, listener: Listener) -> Connection:
        """Send a request on one that nobody uses.

        Raises: TaskFailed.
        """
        connection = self.take()
        try:
            connection.start(request, listener)
        except (pycurl.error, ValueError) as error:
            # The connection is not given back: nobody knows which of its options have been set.
            raise TaskFailed(FailureCode.BAD_URL, f"libcurl does not take this request: {error.args[-1]}") from None
        return connection

    def keep_warm(self, *, many: bool) -> None:
        """Keep the connections of requests that end from now on, or one of them."""
        self._engine.keep_warm(MOST_WARM if many else 1)

    def drop_surplus(self) -> None:
        """Close all connections at rest, where there are several."""
        self._engine.drop_surplus()

    def waited_s(self) -> float:
        """Return for how long this process has waited for something to do."""
        return self._engine.waited_s

    def give_back(self, connection: Connection) -> None:
        """Take one back, at rest."""
        self._free.append(connection)
