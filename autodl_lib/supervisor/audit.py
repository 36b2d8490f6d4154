"""One log line for each change that somebody asks for, and for each task's end: who, from which process, what.

Runs as: the supervisor.  Talks to: logging (the journal, where that reads it).
Security: no URL and no header is logged. Names of programs are the callers' own words: cut, and made printable.
Invariants: who floods the daemon with changes does not flood the log: LINES_PER_S lines a second and LINES_BURST at
once for each user, then a count. The history on disk has them all.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autodl_lib.contract.task import Uid
from autodl_lib.contract.worker_messages import Finished
from autodl_lib.store.rows import Actor

LINES_PER_S = 20.0
LINES_BURST = 400.0
_IDS_SHOWN = 50
_MAX_USERS = 4096

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Budget:
    left: float = LINES_BURST
    at_mono: float = 0.0
    suppressed: int = 0


class AuditLog:
    """Writes the lines."""

    def __init__(self) -> None:
        self.on_change: Callable[[int], None] = lambda _: None
        """Told of how many tasks each change was, or 1."""
        self._budgets: dict[Uid, _Budget] = {}

    def changed(self, actor: Actor, action: str, ids: Sequence[int] = (), detail: str = "") -> None:
        """Somebody has changed tasks (`ids`), or something else that `detail` names."""
        self.on_change(max(1, len(ids)))
        suppressed = self._pay(actor.uid)
        if suppressed is None:
            return
        logger.info(
            "%s by %s (uid %d, process %d, %s)%s%s",
            action,
            actor.name,
            actor.uid,
            actor.pid,
            actor.program or "gone",
            f": {_words_of(ids)}" if ids else "",
            f": {detail}" if detail else "",
            extra={
                "event": "changed",
                "action": action,
                "uid": actor.uid,
                "user": actor.name,
                "pid": actor.pid,
                "program": actor.program,
                "task_id": ids[0] if len(ids) == 1 else None,
                "task_ids": " ".join(map(str, ids[:_IDS_SHOWN])) if len(ids) > 1 else None,
                "tasks_num": len(ids) or None,
                "detail": detail or None,
                "suppressed": suppressed or None,
            },
        )

    def finished(self, uid: Uid, task_id: int, report: Finished) -> None:
        """A task's file is in place."""
        suppressed = self._pay(uid)
        if suppressed is None:
            return
        logger.info(
            "task %d is finished: %s, %d bytes%s",
            task_id,
            printable(report.dest),
            report.size_bytes,
            f", sha256 {report.sha256}" if report.sha256 else "",
            extra={
                "event": "task_finished",
                "task_id": task_id,
                "uid": uid,
                "dest": report.dest,
                "size_bytes": report.size_bytes,
                "sha256": report.sha256,
                "suppressed": suppressed or None,
            },
        )

    def _pay(self, uid: Uid) -> int | None:
        """Return how many lines of a user were left out before this one; None where this one is, too."""
        now = time.monotonic()
        budget = self._budgets.get(uid)
        if budget is None:
            if len(self._budgets) >= _MAX_USERS:
                self._budgets.clear()
            budget = self._budgets[uid] = _Budget(at_mono=now)
        budget.left = min(LINES_BURST, budget.left + (now - budget.at_mono) * LINES_PER_S)
        budget.at_mono = now
        if budget.left < 1:
            budget.suppressed += 1
            return None
        budget.left -= 1
        suppressed, budget.suppressed = budget.suppressed, 0
        return suppressed


def printable(text: str) -> str:
    """Return text without what could forge or break a line of a log."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)


def _words_of(ids: Sequence[int]) -> str:
    if len(ids) == 1:
        return f"task {ids[0]}"
    shown = ", ".join(map(str, ids[:3]))
    return f"tasks {shown}{' ...' if len(ids) > 3 else ''} ({len(ids)} in all)"
