"""Sends the requests of `add` and `get`, and knows at each moment what of them is queued.

Runs as: the caller.  Talks to: the daemon through client.
Invariants: after the first request that is refused no more are sent, and what has been sent is answered first; the
error is that of the first. So it is with Ctrl-C.
How it fails: what was asked before and after a refused request is queued, and a lost connection leaves it open what is;
`cut_short` and `interrupted` say what came of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from autodl_lib.cli.interruption import Interruption
from autodl_lib.cli.text import plural
from autodl_lib.client.connection import Connection
from autodl_lib.client.results import decoded
from autodl_lib.contract.errors import AutodlError
from autodl_lib.contract.replies.tasks import Ids
from autodl_lib.contract.requests.adding import Add


class Sending:
    """The requests of one command line on their way."""

    def __init__(self, requests: Sequence[Add]) -> None:
        self.ids: list[int] = []
        """Of the tasks that the daemon has acknowledged."""
        self._requests = requests
        self._unanswered: deque[range] = deque()
        """Which URLs, counted from 1, each request has that was sent and not answered."""
        self._queued: list[range] = []
        self._stopped = False

    def answers(self, connection: Connection) -> Iterator[list[int]]:
        """Send the requests, and yield the ids of each that is not refused.

        Raises: KeyboardInterrupt at its end, after Ctrl-C; the first refusal; what `call_all` raises.
        """
        refusal: AutodlError | None = None
        with Interruption() as interruption:
            try:
                for answer in connection.call_all(self._requests_until(interruption)):
                    if isinstance(answer, AutodlError):
                        refusal = refusal or answer
                        self._unanswered.popleft()
                        self.stop()
                    else:
                        yield self._take(answer)
            except (AutodlError, KeyboardInterrupt):
                if refusal is None:
                    raise
            if refusal is not None:
                raise refusal
            if interruption.came:
                raise KeyboardInterrupt

    def stop(self) -> None:
        """Send no more; what has been sent is answered."""
        self._stopped = True

    @property
    def urls_num(self) -> int:
        """How many URLs the requests have."""
        return sum(len(request.urls) for request in self._requests)

    @property
    def interrupted(self) -> str:
        """What a message says after Ctrl-C."""
        maybe = self._maybe
        return f"interrupted: {self._known}{maybe} yet" if maybe else f"interrupted: {self._known}"

    @property
    def cut_short(self) -> str:
        """What a message says before that of an error; empty where nothing is queued."""
        if maybe := self._maybe:
            return f"{self._known}{maybe}"
        if not self.ids:
            return ""
        return f"only {plural(len(self.ids), 'URL')} of {self.urls_num} could be queued{self._which}"

    @property
    def _known(self) -> str:
        return f"queued {plural(len(self.ids), 'URL')} of {self.urls_num}{self._which}"

    @property
    def _maybe(self) -> str:
        number = sum(map(len, self._unanswered))
        return f", and maybe {number} more: the daemon has not answered" if number else ""

    @property
    def _which(self) -> str:
        """Name the URLs that are queued, unless they are the first ones."""
        places = list(chain.from_iterable(self._queued))
        return "" if places[-1:] == [len(places)] or not places else f" (number {spans(places)} of them)"

    def _take(self, result: dict[str, Any]) -> list[int]:
        ids = list(decoded(Ids, result).ids)
        self.ids += ids
        self._queued.append(self._unanswered.popleft())
        return ids

    def _requests_until(self, interruption: Interruption) -> Iterator[Add]:
        first = 1
        for request in self._requests:
            if interruption.came or self._stopped:
                return
            after = first + len(request.urls)
            self._unanswered.append(range(first, after))
            first = after
            yield request


def spans(numbers: Iterable[int]) -> str:
    """Write ids or places for a message: `1 to 5000, 5003`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join(" to ".join(map(str, run)) for run in runs)
