"""libcurl's sockets and timers on the worker's epoll: one multi handle, connections kept warm in it.

Runs as: the task's owner.  Talks to: the network, through libcurl.
Invariants: a warm connection on which something came unasked is not used again, for it would be taken for the next
answer (libcurl uses it all the same); nothing but libcurl's callbacks runs inside libcurl; ends of requests are told
from `run_due` and `handle`, so that whoever is told may start the next request at once.
Source: curl.se/libcurl/c/libcurl-multi.html (the multi_socket interface).
"""

from __future__ import annotations

import contextlib
import errno
import select
import time
from typing import Protocol

import pycurl

from autodl_lib.worker.network.tap import Tap, connected_to, is_all_read
from autodl_lib.worker.network.warm_sockets import WarmSockets

_NUDGE_S = 0.05
MOST_WARM = 16
"""Connections that are kept for later requests."""
_NO_MULTIPLEXING = 0
"""Each request has a connection of its own: a second one is opened for its own share of the way."""

_EPOLL_EVENTS = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}


class Requester(Protocol):
    """Who has an easy handle in the engine."""

    def request_stepped(self) -> None:
        """Hear that libcurl has done something, outside of its callbacks."""

    def request_ended(self, code: int, message: str) -> None:
        """Hear that libcurl is done; the handle has been removed."""

    def body_waits(self) -> None:
        """Hear that the socket of a tap has something, or has come to its end."""

    def bytes_seen(self) -> int:
        """Return the bytes that libcurl has handed over of the present request."""

    def bytes_since_redirect(self) -> int:
        """Return those of them that came after the last redirect, which may have led to another connection."""


class Engine:
    """Drives easy handles."""

    def __init__(self, epoll: select.epoll) -> None:
        self.waited_s = 0.0
        """For how long the loop has had nothing to do: what is left of the time is work."""
        self._epoll = epoll
        self._sockets: dict[int, int] = {}
        """What libcurl waits for on each."""
        self._watched: set[int] = set()
        """Those that the kernel was told of."""
        self._changed: set[int] = set()
        self._active: dict[pycurl.Curl, Requester] = {}
        self._taps: dict[int, Requester] = {}
        self._deadline: float | None = None
        self._nudged: set[pycurl.Curl] = set()
        self._unwatched: set[int] = set()
        """Sockets that the kernel does not tell of: libcurl is made to look at them now and then."""
        self._nudge_mono = 0.0
        self._warm = WarmSockets()
        self._most_warm = MOST_WARM
        self._fresh: set[pycurl.Curl] = set()
        self._multi = self._new_multi()

    def add(self, easy: pycurl.Curl, requester: Requester, *, needs_nudges: bool = False) -> None:
        """Start a request; libcurl takes its first step in the next `run_due`.

        `needs_nudges`: libcurl (7.88) may wait for the wrong socket, and is made to look at all of them now and then.
        """
        if needs_nudges:
            self._nudged.add(easy)
            self._nudge_mono = time.monotonic() + _NUDGE_S
        if self._warm.has_unasked_bytes(self._sockets):
            if self._active:
                easy.setopt(pycurl.FRESH_CONNECT, 1)
                self._fresh.add(easy)
            else:
                self._begin_anew()
        self._active[easy] = requester
        self._multi.add_handle(easy)

    def remove(self, easy: pycurl.Curl) -> None:
        """Stop a request; its requester is not told."""
        self._nudged.discard(easy)
        if self._active.pop(easy, None) is not None:
            self._warm.doubt()  # nobody knows whether libcurl keeps the connection
            self._detach(easy)

    def keep_warm(self, most: int) -> None:
        """Keep at most so many connections from now on: with each request that ends, libcurl closes one beyond them."""
        if most != self._most_warm:
            self._most_warm = most
            self._multi.setopt(pycurl.M_MAXCONNECTS, most)

    def drop_surplus(self) -> None:
        """Close all connections at rest, where there are several and nobody is served."""
        if not self._active and self._warm.count() > 1:
            self._begin_anew()

    def tap(self, easy: pycurl.Curl) -> Tap | None:
        """Take the rest of a body past libcurl, for which the request is over; None where that can't be.

        libcurl closes its descriptor of the socket, and the connection lives on in that of the tap.
        Raises: ConnectionError, when libcurl has read on meanwhile.
        """
        requester = self._active[easy]
        local = (str(easy.getinfo(pycurl.LOCAL_IP)), int(easy.getinfo(pycurl.LOCAL_PORT)))
        peer = (str(easy.getinfo(pycurl.PRIMARY_IP)), int(easy.getinfo(pycurl.PRIMARY_PORT)))
        for fd in self._sockets:
            connected = connected_to(fd, local, peer)
            if connected is not None:
                break
        else:
            return None
        earlier_bytes = self._warm.handed_over_bytes(fd)
        possible = (requester.bytes_seen(), requester.bytes_since_redirect())
        exact = [size for size in possible if is_all_read(connected, earlier_bytes + size)]
        if not exact:
            connected.close()
            return None
        try:
            tap = Tap(connected)
        except OSError:  # there are no more descriptors
            connected.close()
            return None
        try:
            self.watch(tap)
        except OSError:  # nor more watches
            tap.close()
            return None
        # The kernel would go on telling of the old descriptor as long as there is another one of the socket.
        self._watch_socket(pycurl.POLL_REMOVE, fd, None, None)
        self.update_watches()
        self.remove(easy)
        self._taps[tap.fileno()] = requester
        if not is_all_read(connected, earlier_bytes + exact[0]):
            self.close(tap)
            raise ConnectionError(errno.EIO, "libcurl has read on")
        return tap

    def watch(self, tap: Tap) -> None:
        """Tell its requester when there is something in a tap."""
        self._epoll.register(tap.fileno(), select.EPOLLIN)
        self._watched.discard(tap.fileno())  # as what had this number before
        self._changed.discard(tap.fileno())

    def unwatch(self, tap: Tap) -> None:
        """Let what comes wait."""
        with contextlib.suppress(FileNotFoundError):  # nobody watches it
            self._epoll.unregister(tap.fileno())

    def close(self, tap: Tap) -> None:
        """Let go of a tap."""
        self.unwatch(tap)
        del self._taps[tap.fileno()]
        tap.close()

    def owns(self, fd: int) -> bool:
        """Tell whether a file descriptor is one of libcurl's sockets."""
        return fd in self._sockets or fd in self._taps

    def deadline_mono(self) -> float | None:
        """Return when `run_due` has something to do, None when only sockets matter."""
        if not self._nudged and not self._unwatched:
            return self._deadline
        return self._nudge_mono if self._deadline is None else min(self._deadline, self._nudge_mono)

    def handle(self, fd: int, events: int) -> None:
        """Tell libcurl that a socket is ready, or the requester whose tap it is."""
        tapped = self._taps.get(fd)
        if tapped is not None:
            tapped.body_waits()
            return
        mask = pycurl.CSELECT_IN if events & select.EPOLLIN else 0
        if events & select.EPOLLOUT:
            mask |= pycurl.CSELECT_OUT
        if events & (select.EPOLLERR | select.EPOLLHUP):
            mask |= pycurl.CSELECT_ERR
        self._step(fd, mask)

    def run_due(self, now: float) -> None:
        """Tell libcurl that its time has come, if it has."""
        while self._deadline is not None and self._deadline <= now:
            self._deadline = None
            self._step(pycurl.SOCKET_TIMEOUT, 0)
        if (self._nudged or self._unwatched) and now >= self._nudge_mono:
            self._nudge_mono = now + _NUDGE_S
            self._multi.perform()
            self._look_around()

    def _step(self, fd: int, mask: int) -> None:
        before = len(self._active)
        _, running = self._multi.socket_action(fd, mask)
        for requester in tuple(self._active.values()):
            requester.request_stepped()
        if running < before:
            self._tell_ended()

    def _look_around(self) -> None:
        for requester in tuple(self._active.values()):
            requester.request_stepped()
        self._tell_ended()

    def _tell_ended(self) -> None:
        waiting = 1
        while waiting:
            waiting, succeeded, failed = self._multi.info_read()
            ended = [(easy, 0, "") for easy in succeeded] + failed
            for easy, code, message in ended:
                self._nudged.discard(easy)
                requester = self._active.pop(easy, None)
                if requester is not None:
                    is_known = easy.getinfo(pycurl.NUM_CONNECTS) == 0
                    self._warm.add(easy.getinfo(pycurl.LASTSOCKET), requester.bytes_seen(), is_known=is_known)
                    self._detach(easy)
                    requester.request_ended(code, message)

    def _begin_anew(self) -> None:
        """Close all connections, where all are at rest."""
        self._multi.close()
        self._multi = self._new_multi()
        self._warm.forget()

    def _new_multi(self) -> pycurl.CurlMulti:
        multi = pycurl.CurlMulti()
        multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch_socket)
        multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        multi.setopt(pycurl.M_MAXCONNECTS, self._most_warm)
        multi.setopt(pycurl.M_PIPELINING, _NO_MULTIPLEXING)
        return multi

    def _detach(self, easy: pycurl.Curl) -> None:
        self._multi.remove_handle(easy)
        if easy in self._fresh:
            self._fresh.discard(easy)
            easy.setopt(pycurl.FRESH_CONNECT, 0)

    def _watch_socket(self, what: int, fd: int, _multi: object, _data: object) -> None:
        if what == pycurl.POLL_REMOVE:
            self._unwatched.discard(fd)
            self._sockets.pop(fd, None)
        else:
            self._sockets[fd] = _EPOLL_EVENTS.get(what, 0)
        self._changed.add(fd)

    def update_watches(self) -> None:
        """Tell the kernel which sockets libcurl waits for now: for whoever waits for events next.

        Between two waits, libcurl often lets go of a socket and takes it up again.
        """
        while self._changed:
            fd = self._changed.pop()
            events = self._sockets.get(fd)
            if events is not None:
                self._watch_now(fd, events)
            elif fd in self._watched:
                self._watched.discard(fd)
                with contextlib.suppress(OSError):  # libcurl may have closed it already
                    self._epoll.unregister(fd)

    def _watch_now(self, fd: int, events: int) -> None:
        try:
            if fd in self._watched:
                try:
                    self._epoll.modify(fd, events)
                    return
                except FileNotFoundError:  # that one was closed, and this one is another
                    self._watched.discard(fd)
            self._epoll.register(fd, events)
            self._watched.add(fd)
        except OSError:  # the user's share of watches is used up, or memory is
            self._unwatched.add(fd)
            self._nudge_mono = time.monotonic() + _NUDGE_S

    def _set_timer(self, timeout_ms: int) -> None:
        self._deadline = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000
