"""How long a transfer waits: for bytes, for the end of a refusal's body, for a server that refused a part.

Runs as: the task's owner.  Talks to: nobody; no I/O.
Invariants: while a transfer rests of its own will, it can't stall.
"""

from __future__ import annotations

from autodl_lib.contract.worker_messages import TransferSettings

_DRAIN_S = 1.0
"""So long, a refusal's body may take: once it has come, the connection stays usable."""
_NEVER = float("inf")


class Patience:
    """A transfer's deadlines."""

    def __init__(self, settings: TransferSettings) -> None:
        self._settings = settings
        self._active_mono = 0.0
        self._has_heard = False
        self._drain_until_mono = _NEVER
        self._rest_until_mono = _NEVER

    def begin(self, now: float) -> None:
        """Wait for bytes from now on."""
        self._active_mono = now

    def heard(self, now: float) -> None:
        """Take in that bytes came, of a head or a body."""
        self._active_mono = now
        self._has_heard = True

    def drain(self, now: float) -> None:
        """Bodies that nobody wants may come to their end, for a moment that begins with the first of them."""
        self._drain_until_mono = min(self._drain_until_mono, now + _DRAIN_S)

    def is_drained(self, now: float) -> bool:
        """Tell, once, that the moment is over."""
        if now < self._drain_until_mono:
            return False
        self._drain_until_mono = _NEVER
        return True

    def rest_until(self, until_mono: float) -> None:
        """Ask for nothing until then."""
        self._rest_until_mono = until_mono

    def rests(self) -> bool:
        """Tell whether nothing is to be asked for now."""
        return self._rest_until_mono < _NEVER

    def is_rested(self, now: float) -> bool:
        """Tell, once, that the rest is over."""
        if now < self._rest_until_mono:
            return False
        self._rest_until_mono = _NEVER
        return True

    def has_stalled(self, now: float, *, is_held_back: bool) -> bool:
        """Tell whether nothing has come for too long."""
        return now >= self._stall_mono(is_held_back=is_held_back)

    def stall_words(self, host: str) -> str:
        """Say so."""
        return f"{host} sent nothing for {self._settings.stall_timeout_s:g} s"

    def wake_mono(self, *, is_held_back: bool) -> float:
        """Return when one of the answers above may change."""
        stall_mono = self._stall_mono(is_held_back=is_held_back)
        return min(self._drain_until_mono, self._rest_until_mono, stall_mono)

    def _stall_mono(self, *, is_held_back: bool) -> float:
        if is_held_back or self.rests():
            return _NEVER
        connect_s = 0.0 if self._has_heard else self._settings.connect_timeout_s  # libcurl ends that by itself
        return self._active_mono + max(self._settings.stall_timeout_s, connect_s)
