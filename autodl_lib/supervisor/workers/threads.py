"""Work on threads; that the machine has none left to give is an OSError, like any other shortage of it.

Runs as: the supervisor.  Talks to: nobody.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")


def on_thread(executor: Executor, work: Callable[[], T]) -> asyncio.Future[T]:
    """Have a thread of the executor do some work.

    Raises: OSError.
    """
    try:
        return asyncio.get_running_loop().run_in_executor(executor, work)
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from None


def start_thread(thread: threading.Thread) -> None:
    """Start a thread.

    Raises: OSError.
    """
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from None
