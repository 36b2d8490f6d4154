"""Starting processes from the forkserver: workers, and the manager of the report queue.

Runs as: the supervisor; `start` blocks for some milliseconds and so runs on a thread of its own.
Talks to: multiprocessing's forkserver, which is started on first use and restarted when it has died.
Invariants: never `fork` from the supervisor, which has a loop, threads and a database open.
How it fails: OSError or EOFError when the forkserver died meanwhile; asking again starts another.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import autodl_lib

PRELOAD = [
    "autodl_lib.supervisor.workers.forkserver_words",
    "autodl_lib.supervisor.workers.worker_session",
    "autodl_lib.privilege.first_code",
    "autodl_lib.supervisor.workers.report_queue",
    "autodl_lib.supervisor.workers.rehearsal",
    "autodl_lib.worker.preload",
]
"""What the forkserver imports once, so that a process forked from it starts in milliseconds."""


_DESCRIPTORS = 8
"""What a start takes for a moment: a socket, two pipes and a pidfd, and some for what else goes on."""


def forkserver_context() -> ForkServerContext:
    """Return the context that all processes come from; call once, before the first start."""
    # A child runs the main script again, as root, before anything else: there is nothing in it for it.
    main = sys.modules["__main__"]
    main.__spec__ = None
    if hasattr(main, "__file__"):
        del main.__file__
    # The forkserver of Python 3.11 ignores the sys.path it is sent, and its preload then fails silently.
    parent = str(Path(autodl_lib.__file__).resolve().parent.parent)
    if Path(parent).name not in ("site-packages", "dist-packages"):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [parent, os.environ.get("PYTHONPATH", "")]))
    # Python 3.11.0 would have its forkserver listen where any local user can talk to it (CVE-2022-42919).
    util.abstract_sockets_supported = False  # type: ignore[misc]
    _do_without_tracker()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def _do_without_tracker() -> None:
    """Let multiprocessing take it that its resource tracker runs: a process of root less, that nothing here needs."""
    tracker = resource_tracker._resource_tracker
    if getattr(tracker, "_fd", 0) is None:
        tracker._fd = os.open(os.devnull, os.O_WRONLY)  # type: ignore[attr-defined]


def start(process: BaseProcess) -> int:
    """Start a process and return its pidfd, which is readable once the process has ended; blocks.

    Raises: OSError, EOFError.
    """
    _see_to_descriptors()
    process.start()
    return os.pidfd_open(process.pid or 0)


def _see_to_descriptors() -> None:
    """Find out now whether there are enough: who lacks one in the midst of a request ends the forkserver by that.

    Raises: OSError.
    """
    with contextlib.ExitStack() as held:
        for _ in range(_DESCRIPTORS):
            held.callback(os.close, os.open(os.devnull, os.O_RDONLY))


def ensure_forkserver() -> int:
    """Start the forkserver if none lives; return a pidfd of it; blocks.

    Raises: OSError.
    """
    forkserver.ensure_running()
    return os.pidfd_open(_forkserver_pid() or 0)


def kill_forkserver() -> None:
    """End a forkserver that does not answer; it is our child, so its pid can't have been reused."""
    pid = _forkserver_pid()
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def waited_for() -> set[int]:
    """Return the children that multiprocessing itself waits for: the forkserver and the resource tracker."""
    tracker = getattr(resource_tracker._resource_tracker, "_pid", None)
    return {pid for pid in (_forkserver_pid(), tracker) if isinstance(pid, int)}


def forget_children() -> None:
    """Leave what still runs to end by itself: multiprocessing would wait for it at exit, for ever if need be."""
    multiprocessing.process._children.clear()  # type: ignore[attr-defined]


def raise_file_limit() -> None:
    """Allow this process as many descriptors as it may have: clients and workers take some each."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _forkserver_pid() -> int | None:
    pid = getattr(forkserver._forkserver, "_forkserver_pid", None)
    return pid if isinstance(pid, int) else None
