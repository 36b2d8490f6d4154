"""The small files that a worker asks for side by side, each on a connection of its own.

Runs as: the task's owner.  Talks to: nobody but its small files.
Who waits for one answer after the other is woken for each file, and so is the server; what was asked for together comes
together. How many that are is found out: one more after each that came within QUICK_S, one alone after any that did not
come at once. Servers that are far away have many workers instead, and their connections take long to make.
Invariants: never more are asked for than any of them was granted connections, all of one origin, oldest first; a
session takes the place of the oldest alone, so whatever has one is older than all that wait. What is set back meanwhile
waits until no other is under way.
"""

from __future__ import annotations

import time

from autodl_lib.contract.worker_messages import Assign
from autodl_lib.worker.phase import Phase
from autodl_lib.worker.small_file import SmallFile

MOST_AT_ONCE = 8
QUICK_S = 0.02
_LONGEST_SCHEME = len("https://")


class Flight:
    """Those that have been begun and are not complete, in order; among them such as are set back."""

    def __init__(self) -> None:
        self.files: list[SmallFile] = []
        """To be changed here alone."""
        self.was_wide = False
        """Whether there have been several at once, until somebody has seen to their connections."""
        self._width = 1
        self._origin = ""

    def has_room_for(self, assign: Assign) -> bool:
        """Tell whether a small file may be begun beside those that are there."""
        number = len(self.files) + 1
        if number > self._width or number > assign.connections[0] or _origin_of(assign.url) != self._origin:
            return False
        for file in self.files:
            if not file.is_asking or file.wants_session or number > file.assign.connections[0]:
                return False
        return True

    def add(self, file: SmallFile) -> None:
        """Take in one that is about to be begun."""
        if not self.files:
            origin = _origin_of(file.assign.url)
            if origin != self._origin:
                self._origin, self._width = origin, 1
        self.was_wide |= bool(self.files)
        self.files.append(file)

    def is_first(self, file: SmallFile) -> bool:
        """Tell whether one is the oldest."""
        return bool(self.files) and self.files[0] is file

    def find(self, lease: str) -> SmallFile | None:
        """Return the one of a lease."""
        for file in self.files:
            if file.assign.lease == lease:
                return file
        return None

    def give_up(self, file: SmallFile) -> None:
        """Let go of one that did not come at once: a session has it now."""
        self.files.remove(file)
        self._width = 1

    def asking_num(self) -> int:
        """Return how many connections are in use."""
        return sum(1 for file in self.files if file.is_asking)

    def narrow(self, most: int) -> None:
        """Set back the newest where more than `most` ask, or more than one of them may use connections."""
        asking = [file for file in self.files if file.is_asking]
        while asking and len(asking) > min(most, *(file.assign.connections[0] for file in asking)):
            asking.pop().set_back()

    def wake_mono(self) -> float:
        """Return when one of them has waited for long enough."""
        return min([file.wake_mono for file in self.files], default=float("inf"))

    def wants_session(self) -> bool:
        """Tell whether the oldest is only waiting for a session to take its place."""
        return bool(self.files) and self.files[0].wants_session

    def land(self) -> tuple[list[SmallFile], list[Assign]]:
        """Let go of those that have come or ended, and return them; and what is to be begun anew, once none asks."""
        landed: list[SmallFile] = []
        left: list[SmallFile] = []
        is_asking = False
        for file in self.files:
            phase = file.phase
            is_asking |= phase is Phase.TRANSFERRING
            (left if phase is Phase.TRANSFERRING or phase is Phase.WAITING else landed).append(file)
        if landed:
            self.files = left
            late_mono = time.monotonic() - QUICK_S
            quick = [file for file in landed if file.phase is not Phase.ENDED and file.begun_mono > late_mono]
            self._width = min(MOST_AT_ONCE, self._width + len(quick))
        again: list[Assign] = []
        if left and not is_asking:
            again = [file.assign for file in left]
            self.files, self._width = [], 1
        return landed, again


def _origin_of(url: str) -> str:
    end = url.find("/", _LONGEST_SCHEME)
    return url if end < 0 else url[:end]
