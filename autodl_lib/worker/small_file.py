"""One assignment whose file comes at once, right behind its response's head: one request, one write, one name.

Runs as: the task's owner, partly inside of libcurl's callbacks.  Talks to: a connection, the destination folder, the
sync thread, the report buffer.
Nearly all small files come like that, and a session, which can do all the rest, would be most of what they cost. So
whatever is not plain (another status, no length, a larger body, digests to compare, an error, an order, nothing for
GIVEN_S) is handed over to one, with the request as it is and the bytes that it has brought. Where there is no place for
a session yet (see flight), the body waits, or the end that the request has come to. When GIVEN_S (KEPT_S after an end)
are over and there is none, it is set back: its request ends, and it waits to be begun anew.
Its phases are those of a session (see phase): TRANSFERRING -> SYNCING -> READY -> PUBLISHING -> ENDED; set back, it is
WAITING.
Invariants: as for a session; and nothing is decided here but that a complete response of status 200 is the file.
How it fails: before READY it doesn't, what fails was handed over before; after that as a session does.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Protocol

from autodl_lib.contract.task import OnConflict
from autodl_lib.contract.transfer_options import NO_OPTIONS
from autodl_lib.contract.worker_messages import Assign, Finished, Ready, Report
from autodl_lib.worker import letting_go
from autodl_lib.worker.fetching import Tally
from autodl_lib.worker.files.checking import promised_by
from autodl_lib.worker.files.file_name import check_output, name_from_response, part_name
from autodl_lib.worker.files.folder import Folder
from autodl_lib.worker.files.part_file import clear_abandoned
from autodl_lib.worker.files.unnamed_file import UnnamedFile, open_unnamed
from autodl_lib.worker.letting_go import Kept
from autodl_lib.worker.network.connection import Answer, Connection
from autodl_lib.worker.network.response import Accept, judge
from autodl_lib.worker.network.response_head import ResponseHead
from autodl_lib.worker.network.verdicts import CurlResult, os_verdict
from autodl_lib.worker.phase import Phase
from autodl_lib.worker.pulse import Facilities
from autodl_lib.worker.session import Session
from autodl_lib.worker.sync_thread import Fsync, SyncJob
from autodl_lib.worker.transfer.defects import verdict_of
from autodl_lib.worker.transfer.job import whole_request
from autodl_lib.worker.transfer.transfer import Transfer

GIVEN_S = 0.05
"""So long, an answer may take: then it is something to be seen, and watched over."""
KEPT_S = 0.2
"""So long, what a request has ended with is kept for a session."""
_MOST_BYTES = 256 * 1024
_NEVER = float("inf")


def may_come_at_once(assign: Assign) -> bool:
    """Tell whether a task asks for nothing but its file, under a name that is free."""
    is_new = assign.identity is None and assign.part is None
    is_plain = _is_plain(assign) and assign.on_conflict is OnConflict.RENAME and not assign.limit_rate_bps
    return is_new and is_plain and assign.connections[:1] > (0,) and assign.url[:4].lower() == "http"


def _is_plain(assign: Assign) -> bool:
    options = assign.options
    if options is NO_OPTIONS:
        return True
    is_checked = options.checksums or options.pieces is not None or options.size_bytes is not None
    is_conditional = options.if_newer or options.continue_from is not None
    return not (options.mirrors or is_checked or is_conditional or options.remote_time)


class Place(Protocol):
    """Where a small file is among the worker's assignments."""

    def takes_session_of(self, file: SmallFile) -> bool:
        """Tell whether a session may take its place now."""

    def replace(self, file: SmallFile, session: Session) -> None:
        """Hear of the session that has its assignment from now on."""


class SmallFile:
    """One assignment; a connection's listener."""

    is_visible = False
    """Whether `started` was reported: that takes longer than it is here."""

    def __init__(self, assign: Assign, facilities: Facilities, place: Place) -> None:
        self.assign = assign
        self.phase = Phase.WAITING
        self.begun_mono = _NEVER
        self._facilities = facilities
        self._place = place
        self._durable = facilities.settings.durable
        self._folder: Folder | None = None
        self._connection: Connection | None = None
        self._accepted: Accept | None = None
        self._pieces: list[bytes] = []
        self._received_bytes = 0
        self._is_put_off = False
        """Whether more of the body waits for a session."""
        self._result: CurlResult | None = None
        """How the request has ended, where that waits for one."""
        self._status: int | None = None
        self._file: UnnamedFile | None = None
        self._size_bytes = 0
        self._is_halted = False
        """Whether it is to be let go of when the sync thread has its file no more."""

    @property
    def wake_mono(self) -> float:
        """When `tick` has something to do."""
        if self.phase is not Phase.TRANSFERRING:
            return _NEVER
        return self.begun_mono + (GIVEN_S if self._result is None else KEPT_S)

    @property
    def is_asking(self) -> bool:
        """Whether it uses a connection."""
        return self.phase is Phase.TRANSFERRING and self._result is None

    @property
    def wants_session(self) -> bool:
        """Whether it is only waiting for one to take its place."""
        return self._is_put_off or self._result is not None

    # --- orders and time ---

    def begin(self) -> None:
        """Ask for the file; whatever stands in its way is a session's to say."""
        assign, facilities = self.assign, self._facilities
        self.begun_mono = time.monotonic()
        try:
            if assign.output is not None:
                check_output(assign.output)
            folder = self._folder = facilities.folders.open(assign.dir)
            if folder.takes_unnamed:
                self._connection = facilities.connections.send(whole_request(assign, facilities.settings), self)
        except Exception:  # noqa: BLE001  a session will come to the same, and report it
            self._connection = None
        if self._connection is not None:
            self.phase = Phase.TRANSFERRING
        elif self._place.takes_session_of(self):
            session = Session(assign, facilities)
            self._give_way(session)
            session.begin()
        else:
            self.set_back()

    def tick(self, now: float) -> None:
        """Hand over what takes its time."""
        is_late = now >= self.wake_mono
        if not is_late and not self.wants_session:
            return
        if self._place.takes_session_of(self):
            self._hand_over().tick(now)
        elif is_late:
            self.set_back()

    def publish(self) -> None:
        """Give the file its name: the supervisor has the `ready` report on disk."""
        if self.phase is not Phase.READY:
            return
        try:
            if self._kept().give_name():
                self.phase = Phase.PUBLISHING
            else:
                self._tell_ready()
        except Exception as error:  # noqa: BLE001  reported
            self._fail(error)

    def halt(self, *, discard: bool) -> None:
        """Let go of the assignment, unless it is published: there is nothing to keep, or to `discard`."""
        if self.phase is Phase.SYNCING:
            self._is_halted = True
        elif self.phase in (Phase.WAITING, Phase.TRANSFERRING, Phase.READY):
            self._end(letting_go.halted_report(self.assign, self._tally(), Kept()))

    def set_rate(self, limit_rate_bps: int) -> None:
        """Take at most so many bytes a second from now on."""
        if self.phase is Phase.TRANSFERRING and self._place.takes_session_of(self):
            self._hand_over().set_rate(limit_rate_bps)
        elif self.phase in (Phase.WAITING, Phase.TRANSFERRING):
            self.assign = replace(self.assign, limit_rate_bps=limit_rate_bps)
            self.set_back()

    def grant(self, connections: tuple[int, ...]) -> None:
        """Use at most so many connections from now on: one is enough."""
        self.assign = replace(self.assign, connections=connections)

    def leave(self) -> None:
        """Keep nothing: the supervisor is gone."""

    def set_back(self) -> None:
        """End the request, and wait to be begun anew. Outside of libcurl only."""
        self.phase, self.begun_mono = Phase.WAITING, _NEVER
        self._let_go_of_connection()
        self._folder = self._accepted = None
        self._pieces, self._received_bytes = [], 0
        self._is_put_off, self._result = False, None

    # --- what the connection tells (connection.Listener) ---

    def body_arrived(self, connection: Connection, data: bytes) -> Answer:
        """Keep bytes of a body, inside of libcurl."""
        if not self._pieces:
            self._accepted = _accepted(connection)
        received_bytes = self._received_bytes + len(data)
        if self._accepted is None or received_bytes > (self._accepted.end or 0):
            self._is_put_off = not self._place.takes_session_of(self)
            if self._is_put_off:
                return Answer.LATER
            return self._hand_to_transfer().body_arrived(connection, data)
        self._pieces.append(data)
        self._received_bytes = received_bytes
        return Answer.TAKEN

    def basin_filled(self, _connection: Connection) -> Answer:
        """See connection.Listener; nothing is poured here."""
        return Answer.TAKEN

    def connection_stepped(self, _connection: Connection) -> None:
        """See connection.Listener; what is over at once needs no watching."""

    def connection_ended(self, connection: Connection, result: CurlResult) -> None:
        """Hear how the request ended."""
        accepted = self._accepted
        is_whole = accepted is not None and not result.code and self._received_bytes == accepted.end
        if not is_whole or not self._save(connection.head()):
            if self._place.takes_session_of(self):
                self._hand_to_transfer().connection_ended(connection, result)
            else:
                self._result = result
            return
        self._connection = None
        self._facilities.connections.give_back(connection)
        self._sync()

    # --- from the complete file to its end ---

    def _save(self, head: ResponseHead) -> bool:
        """Write the file; False where that is for a session to do, or to fail at."""
        folder, size_bytes = self._folder, self._received_bytes
        if folder is None or promised_by(head):
            return False
        file = None
        try:
            reserve_bytes = self._facilities.settings.min_free_bytes
            if not folder.had_plenty(size_bytes + reserve_bytes) and folder.free_bytes() - size_bytes < reserve_bytes:
                return False
            name = self.assign.output or name_from_response(self.assign.url, head)
            file = open_unnamed(folder, name)
            if file is None:
                return False
            file.write(self._pieces)
            if self.assign.is_again:
                clear_abandoned(folder, part_name(file.name), self.assign.tag)
        except Exception:  # noqa: BLE001  a session will come to the same, and report it
            if file is not None:
                file.close()
            return False
        self._file, self._size_bytes, self._status = file, size_bytes, head.status
        self._pieces = []
        return True

    def _sync(self) -> None:
        self.phase = Phase.SYNCING
        if self._durable:
            self._facilities.sync.hold(SyncJob(run=self._bring_to_disk, done=self._synced, fd=self._kept().fd))
        else:
            self._synced(self._flush())

    def _flush(self) -> OSError | None:
        """Hear of lost bytes, here and now: file systems where that takes time have no unnamed files."""
        try:
            self._kept().flush()
        except OSError as error:
            return error
        return None

    def _bring_to_disk(self, fsync: Fsync) -> None:
        self._kept().sync(fsync)

    def _synced(self, error: OSError | None) -> None:
        if error is not None:
            self._fail(error)
        elif self._is_halted:
            self._end(letting_go.halted_report(self.assign, self._tally(), Kept()))
        else:
            self.phase = Phase.READY
            try:
                self._tell_ready()
            except Exception as failure:  # noqa: BLE001  reported
                self._fail(failure)

    def _tell_ready(self) -> None:
        file = self._kept()
        self._facilities.reports.add(
            Ready(
                lease=self.assign.lease,
                name=file.name,
                part=None,
                identity=file.identity(),
                http_status=self._status,
                bytes_received=self._received_bytes,
            )
        )

    def published_in(self) -> tuple[Folder, int]:
        """Return the folder that must be synced before `published`, and the file's descriptor."""
        return self._kept().folder, self._kept().fd

    def published(self, folder_path: str, error: OSError | None) -> None:
        """Report the end: the folder is synced, and has this path now."""
        file = self._kept()
        if error is not None:
            verdict = file.folder.explain(os_verdict(error, f"sync the folder {file.folder.path}"))
            self._end(letting_go.failed_report(self.assign, verdict, self._tally(), Kept()))
            return
        dest = f"{folder_path.rstrip('/')}/{file.name}"
        self._end(Finished(lease=self.assign.lease, dest=dest, size_bytes=self._size_bytes))

    def _fail(self, error: Exception) -> None:
        verdict = verdict_of(error, f"save to {self.assign.dir}", self.assign.task_id)
        if self._folder is not None:
            verdict = self._folder.explain(verdict)
        self._end(letting_go.failed_report(self.assign, verdict, self._tally(), Kept()))

    def _end(self, report: Report) -> None:
        self.phase = Phase.ENDED
        self._let_go_of_connection()
        if self._file is not None:
            self._file.close()
            self._file = None
        self._folder = None  # it is let go of now
        self._facilities.reports.add(report)

    def _let_go_of_connection(self) -> None:
        if self._connection is not None:
            self._connection.stop()
            self._facilities.connections.give_back(self._connection)
            self._connection = None

    # --- handing over ---

    def _hand_over(self) -> Session:
        session = Session(self.assign, self._facilities)
        connection, result, is_put_off = self._connection, self._result, self._is_put_off
        transfer = self._hand_to_transfer(session)
        if connection is not None and (is_put_off or result is not None):
            transfer.go_on_with(connection, result)
        return session

    def _hand_to_transfer(self, session: Session | None = None) -> Transfer:
        """Leave the request, and what it has brought, to a session's transfer."""
        folder, connection = self._folder, self._connection
        if folder is None or connection is None:
            raise RuntimeError("no request is under way")
        session = session or Session(self.assign, self._facilities)
        self._folder = self._connection = None
        self._give_way(session)
        transfer = session.go_on_with_request(folder, self.begun_mono)
        transfer.take_over(connection, self._pieces, self.begun_mono)
        return transfer

    def _give_way(self, session: Session) -> None:
        self.phase = Phase.ENDED
        self._place.replace(self, session)

    def _kept(self) -> UnnamedFile:
        if self._file is None:
            raise RuntimeError("no file is kept")
        return self._file

    def _tally(self) -> Tally:
        return Tally(bytes_received=self._received_bytes, http_status=self._status)


def _accepted(connection: Connection) -> Accept | None:
    """Return what a plain response of known, small length is; None for any other, and for what makes no sense."""
    if connection.has_left_http():
        return None
    try:
        judgement = judge(connection.head(), None)
    except Exception:  # noqa: BLE001  a transfer will come to the same, and say so
        return None
    is_small = isinstance(judgement, Accept) and judgement.end is not None and judgement.end <= _MOST_BYTES
    return judgement if is_small and isinstance(judgement, Accept) else None
