"""The last step of a complete part file: it is reported ready, gets its final name, and the task is finished.

Runs as: the task's owner.  Talks to: the destination folder; the report buffer.
Invariants: after `publish` has returned True the file counts as delivered, whatever happens.
"""

from __future__ import annotations

import os

from autodl_lib.contract.worker_messages import Finished, Ready
from autodl_lib.worker.fetching import Tally
from autodl_lib.worker.files.folder import Folder
from autodl_lib.worker.holding import Holding


class Delivery:
    """One complete part file."""

    def __init__(self, lease: str, holding: Holding, tally: Tally, sha256: str | None) -> None:
        self._lease = lease
        self._holding = holding
        self._tally = tally
        self._sha256 = sha256
        self._part = holding.opened()
        self._identity = self._part.identity()

    def ready(self) -> Ready:
        """Return the report that the file can be published, under the name to aim at now."""
        holding = self._holding
        return Ready(
            lease=self._lease,
            name=holding.name,
            part=self._part.name,
            identity=self._identity,
            http_status=self._tally.http_status,
            bytes_received=self._tally.bytes_received,
        )

    def publish(self) -> bool:
        """Give the file its final name; False when that is taken and another was chosen.

        Raises: TaskFailed, OSError.
        """
        return self._holding.publish()

    def is_unchanged(self) -> bool:
        """Tell whether the file is what `ready` said: its owner may write to it."""
        return self._part.identity() == self._identity

    def size_bytes(self) -> int:
        """Return the size of the file that is there."""
        return self._identity.size_bytes

    def published_in(self) -> tuple[Folder, int]:
        """Return the folder that must be synced now, and the file's descriptor."""
        return self._holding.folder, self._part.fd

    def finish(self, folder_path: str) -> Finished:
        """Return the report of the end, with where the folder is now; lets go of the file."""
        holding = self._holding
        holding.part = None
        self._part.close()
        dest = os.path.join(folder_path, holding.name)
        size_bytes = self._identity.size_bytes
        return Finished(lease=self._lease, dest=dest, size_bytes=size_bytes, sha256=self._sha256)
