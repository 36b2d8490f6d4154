"""The small files that a worker asks for side by side, each on a connection of its own.

Runs as: the task's owner.  Talks to: nobody but its small files.
Who waits for one answer after the other is woken for each file, and so is the server; what was asked for together comes
together. How many that are is found out: one more after each that came at once, one alone after any that did not.
Invariants: never more are asked for than any of them was granted connections, all of one origin, oldest first; a
session takes the place of the oldest alone, so whatever has one is older than all that wait. What is set back meanwhile
waits until no other is under way.
"""

from __future__ import annotations

from collections.abc import Iterator

from autodl_lib.contract.worker_messages import Assign
from autodl_lib.worker.phase import Phase
from autodl_lib.worker.small_file import SmallFile

MOST_AT_ONCE = 8
_ASKS = frozenset({Phase.TRANSFERRING, Phase.WAITING})
_LONGEST_SCHEME = len("https://")


class Flight:
    """Those that have been begun and are not complete, in order; among them such as are set back."""

    def __init__(self) -> None:
        self._files: list[SmallFile] = []
        self._width = 1
        self._origin = ""

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[SmallFile]:
        return iter(tuple(self._files))

    def has_room_for(self, assign: Assign) -> bool:
        """Tell whether a small file may be begun now."""
        files = self._files
        if not files:
            return True
        number = len(files) + 1
        if number > self._width or number > assign.connections[0] or _origin_of(assign.url) != self._origin:
            return False
        return all(file.phase is Phase.TRANSFERRING and number <= file.assign.connections[0] for file in files)

    def add(self, file: SmallFile) -> None:
        """Take in one that is about to be begun."""
        if not self._files:
            origin = _origin_of(file.assign.url)
            if origin != self._origin:
                self._origin, self._width = origin, 1
        self._files.append(file)

    def is_first(self, file: SmallFile) -> bool:
        """Tell whether one is the oldest."""
        return bool(self._files) and self._files[0] is file

    def find(self, lease: str) -> SmallFile | None:
        """Return the one of a lease."""
        for file in self._files:
            if file.assign.lease == lease:
                return file
        return None

    def give_up(self, file: SmallFile) -> None:
        """Let go of one that did not come at once: a session has it now."""
        self._files.remove(file)
        self._width = 1

    def asking_num(self) -> int:
        """Return how many connections are in use."""
        return sum(1 for file in self._files if file.phase is Phase.TRANSFERRING)

    def narrow(self, most: int) -> None:
        """Set back the newest where more than `most` ask, or more than one of them may use connections."""
        asking = [file for file in self._files if file.phase is Phase.TRANSFERRING]
        while asking and len(asking) > min(most, *(file.assign.connections[0] for file in asking)):
            asking.pop().set_back()

    def wake_mono(self) -> float:
        """Return when one of them has waited for long enough."""
        return min([file.wake_mono for file in self._files], default=float("inf"))

    def wants_session(self) -> bool:
        """Tell whether the oldest is only waiting for a session to take its place."""
        return bool(self._files) and self._files[0].wants_session

    def land(self) -> tuple[list[SmallFile], list[Assign]]:
        """Let go of those that have come or ended, and return them; and what is to be begun anew, once none asks."""
        files = self._files
        landed = [file for file in files if file.phase not in _ASKS]
        if landed:
            files = self._files = [file for file in files if file.phase in _ASKS]
            self._width = min(MOST_AT_ONCE, self._width + len(landed))
        again: list[Assign] = []
        if files and all(file.phase is Phase.WAITING for file in files):
            again = [file.assign for file in files]
            self._files, self._width = [], 1
        return landed, again


def _origin_of(url: str) -> str:
    end = url.find("/", _LONGEST_SCHEME)
    return url if end < 0 else url[:end]
