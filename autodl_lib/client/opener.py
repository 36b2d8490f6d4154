"""Opens a connection to the located daemon; a private one that does not run is started.

Runs as: the caller.  Talks to: the daemon's socket.
How it fails: NoDaemon, with what to do about it.
"""

from __future__ import annotations

from autodl_lib.client.connection import Connection, ConnectionLost, NobodyListens
from autodl_lib.client.locate import Origin, Place, PrivateFolders, check_private, locate, private_folders
from autodl_lib.contract.errors import NoDaemon
from autodl_lib.contract.light_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """How to get a connection: the socket asked for, if any, and the program that a private daemon is."""

    socket: str | None
    entry: str
    """The path of autodl.py."""

    def __call__(self) -> Connection:
        """Connect, starting the private daemon if need be.

        Raises: NoDaemon, NotAllowed, ProtocolMismatch, InvalidParams.
        """
        place = locate(self.socket)
        if place.origin is Origin.PRIVATE:
            return self._open_private(private_folders())
        try:
            return Connection(place.socket)
        except NobodyListens as error:
            raise NoDaemon(f"{error}; {_advice(place)}") from None

    def _open_private(self, folders: PrivateFolders) -> Connection:
        try:
            check_private(folders.socket_dir)
            return Connection(folders.socket)
        except (OSError, NobodyListens, ConnectionLost):
            # Not there, not running, or just ending. The import is put off: most often there is nothing to start.
            from autodl_lib.client.private_daemon import start

            return start(folders, self.entry)


def _advice(place: Place) -> str:
    if place.origin is Origin.SYSTEM:
        return "start it with `systemctl start autodl`"
    return f"start one with `autodl daemon --socket {place.socket}`"
