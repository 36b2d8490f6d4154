"""Ctrl-C while requests are under way: no more are sent, and what was sent is answered first, so it can be told.

Runs as: the caller.  Talks to: nobody.
Invariants: a second Ctrl-C, or a daemon that does not answer in time, is KeyboardInterrupt at once; where Ctrl-C is
ignored (nohup, a background job of a script) it stays so.
"""

from __future__ import annotations

import signal

PATIENCE_S = 3.0
"""How long answers are waited for after Ctrl-C."""


class Interruption:
    """A context in which the first Ctrl-C is only noted."""

    def __init__(self) -> None:
        self.came = False

    def __enter__(self) -> Interruption:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self.came:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        elif signal.getsignal(signal.SIGINT) == self._note:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, *_: object) -> None:
        self.came = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
