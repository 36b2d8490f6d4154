"""What the forkserver says when it dies: a sentence where the machine has no processes or descriptors left to give.

Runs as: the forkserver, which loads this before anything else of ours; nobody else does.  Talks to: the log.
multiprocessing's forkserver ends when a fork fails, and when the supervisor has no descriptors left to send it. Another
is started, so a traceback would only frighten.
A defect of any other kind is shown in full.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType


def say(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    """Write what ended the process, or its child that was not begun yet, to standard error."""
    if isinstance(error, EOFError):
        words = "the supervisor hung up in the middle of a request"
    elif isinstance(error, OSError) and error.errno:
        words = os.strerror(error.errno)
    else:
        sys.__excepthook__(kind, error, at)
        return
    print(f"autodl: forkserver: {words}", file=sys.stderr, flush=True)


sys.excepthook = say
