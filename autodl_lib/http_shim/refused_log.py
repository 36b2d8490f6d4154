"""Says in the log that callers were refused, without letting them fill it.

Runs as: an unprivileged account.  Talks to: the log.
Invariants: a line names codes and counts, nothing that a caller has sent.
"""

from __future__ import annotations

import logging
import time
from collections import Counter

EVERY_S = 10.0

logger = logging.getLogger(__name__)


class RefusedLog:
    """Counts refusals, and says so at most every ten seconds."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._said_mono = -EVERY_S

    def count(self, code: str) -> None:
        """One more was refused."""
        self._counts[code] += 1
        now = time.monotonic()
        if now - self._said_mono >= EVERY_S:
            self._said_mono = now
            logger.warning("refused: %s", ", ".join(f"{code} {count}" for code, count in self._counts.items()))
            self._counts.clear()
