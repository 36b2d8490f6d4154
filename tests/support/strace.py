"""strace on a process of a daemon: what it asks of the kernel is recorded, counted, answered with errors, or its death.

Only the process itself and its threads are traced, and children that they make from then on.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from support.waiting import PATIENCE_S

_CALL = re.compile(r"(?m)^(\d+) +(\w+)\(")


class Strace:
    """A tracer at work, from `with` to the end of its block."""

    def __init__(self, pid: int, output: Path, *options: str) -> None:
        self._command = ["strace", "-f", "-p", str(pid), "-o", str(output), *options]
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        said = b""
        deadline = time.monotonic() + PATIENCE_S
        assert self._process.stderr is not None
        while b"attached" not in said:
            ready, _, _ = select.select([self._process.stderr], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self._process.stderr.fileno(), 4096) if ready else b""
            assert piece, f"strace does not begin: {said.decode()}"
            said += piece
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Let go of the process, if it still lives."""
        process = self._process
        if process is None:
            return
        self._process = None
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)

    def text(self) -> str:
        """Return what was recorded."""
        return self._output.read_text(errors="replace")


def kill_at(call: str, number: int) -> tuple[str, ...]:
    """Return the options with which a process dies at so many calls of a kind, in any of its threads."""
    return (f"--trace={call}", "-e", f"inject={call}:signal=KILL:when={number}")


def fail_at(calls: str, error: str, when: str) -> tuple[str, ...]:
    """Return the options with which calls fail; `when` is strace's: `3`, `2+`, `1..5`."""
    return (f"--trace={calls}", "-e", f"inject={calls}:error={error}:when={when}")


def calls_of(text: str) -> Counter[str]:
    """Return how often each call was made, by the thread that made it most often."""
    by_thread = Counter(_CALL.findall(text))
    most: Counter[str] = Counter()
    for (_, call), number in by_thread.items():
        most[call] = max(most[call], number)
    return most


def sample_of(made: Counter[str], calls: Sequence[str]) -> list[tuple[str, int]]:
    """Return every (call, number) that there was, of these calls."""
    return [(call, number) for call in calls for number in range(1, made[call] + 1)]
