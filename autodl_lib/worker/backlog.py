"""The worker's assignments: who waits, who transfers, who awaits leave to publish.

Runs as: the task's owner.  Talks to: sessions and small files; answers orders.
Whatever may come at once begins as a SmallFile, some of them side by side (flight.py); it has a session take its place
where that is not enough.
One session transfers at a time. One that completed before anybody heard of its start makes room for the next at
once, so small files flow; one that was visible keeps its place until it has ended.
Invariants: at most one visible session; at most MOST_AWAITING complete ones; a waiting assignment goes back as soon
as the one before it takes long; session and small files together use no more connections than the session may.
"""

from __future__ import annotations

import logging
import os
import resource
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.worker_messages import (
    Assign,
    Configure,
    Discard,
    Discarded,
    Failed,
    Grant,
    Halt,
    Order,
    Ping,
    Pong,
    Publish,
    Recall,
    Retained,
    Retire,
    Returned,
    SetRate,
    Yielded,
)
from autodl_lib.worker.files.folder import Folder, OtherFolder
from autodl_lib.worker.files.part_file import discard_part
from autodl_lib.worker.flight import Flight
from autodl_lib.worker.network.verdicts import TaskFailed
from autodl_lib.worker.orders import UnreadableAssign
from autodl_lib.worker.phase import Phase
from autodl_lib.worker.pulse import Facilities
from autodl_lib.worker.session import Session
from autodl_lib.worker.small_file import SmallFile, may_come_at_once
from autodl_lib.worker.sync_thread import Fsync, SyncJob

MOST_AWAITING = 192
RETURN_AFTER_S = 0.1
DEFAULT_UMASK = 0o022
_NEVER = float("inf")

Begun = Session | SmallFile

logger = logging.getLogger(__name__)


class Backlog:
    """All assignments of one worker."""

    def __init__(self, facilities: Facilities) -> None:
        self.is_retiring = False
        self._facilities = facilities
        self._waiting: deque[Assign] = deque()
        self._current: Session | None = None
        self._flight = Flight()
        self._granted: tuple[int, ...] | None = None
        """What the current session may use when it is alone; None where it does."""
        self._awaiting: dict[str, Begun] = {}
        self._published: list[Begun] = []
        self._umask: int | None = None
        # Each holds a descriptor.
        self._most_awaiting = min(MOST_AWAITING, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)

    def obey(self, orders: list[Order | UnreadableAssign]) -> None:
        """Carry out orders; all `publish` among them share one sync of their folder."""
        for order in orders:
            match order:
                case Assign():
                    self._take(order)
                case Publish():
                    for lease in order.leases:
                        self._publish(lease)
                case Halt():
                    self._halt(order)
                case Recall():
                    self._give_back(set(order.leases))
                case SetRate() | Grant():
                    self._steer(order)
                case Configure():
                    self._facilities.settings = order.settings
                case Discard():
                    self._discard(order)
                case Retire():
                    self.retire()
                case Ping():
                    self._facilities.reports.add(Pong())
                case UnreadableAssign():
                    self._refuse(order.lease)
                case _:
                    assert_never(order)
        self._finish_published()

    def step(self, now: float) -> bool:
        """Move everything on that can be moved; True when a request was started."""
        if self._current is not None:
            self._current.tick(now)
            self._settle_current()
            if self._waiting and self._current is not None and now - self._current.begun_mono > RETURN_AFTER_S:
                self._return_waiting()
        if self._flight.files:
            self._tick_flight(now)
        started = False
        while self._waiting and self._may_begin(self._waiting[0]):
            assign = self._waiting.popleft()
            self._set_umask(_umask_of(assign))  # only those that are begun make files and folders
            if self._flight.files or may_come_at_once(assign):
                small = SmallFile(assign, self._facilities, self)
                self._flight.add(small)
                small.begin()
                if small.phase is not Phase.TRANSFERRING:
                    self._settle_flight()
            else:
                self._current = self._session_of(assign)
                self._current.begin()
            self._settle_current()
            if self._facilities.folders.has_moved:
                self._return_waiting()
            started = True
        if self._flight.was_wide:
            self._see_to_warm_connections()
        return started

    def _see_to_warm_connections(self) -> None:
        """Keep one connection, or none, when the last of many small files have come."""
        is_draining = not self._waiting and self._current is None
        self._facilities.connections.keep_warm(many=not is_draining)
        if is_draining and not self._flight.files:
            self._flight.was_wide = False
            self._facilities.connections.drop_surplus()
            self._facilities.connections.keep_warm(many=True)

    def _may_begin(self, assign: Assign) -> bool:
        """Tell whether the next assignment can be begun now: alone, or as one of several small files."""
        flight = self._flight
        if self._current is not None or len(self._awaiting) + len(flight.files) >= self._most_awaiting:
            return False
        if not flight.files:
            return True
        return may_come_at_once(assign) and flight.has_room_for(assign) and _umask_of(assign) == self._umask

    def _tick_flight(self, now: float) -> None:
        self._settle_flight()
        if self._flight.wants_session() or now >= self._flight.wake_mono():
            for small in tuple(self._flight.files):  # where a session ends at once, the next one may have one
                small.tick(now)
            self._settle_flight()
            self._settle_current()

    def deadline_mono(self) -> float:
        """Return when `step` has something to do by time alone."""
        due = self._flight.wake_mono() if self._flight.files else _NEVER
        if self._current is None:
            return due
        if self._waiting:
            due = min(due, self._current.begun_mono + RETURN_AFTER_S)
        return min(due, self._current.wake_mono)

    def is_resting(self) -> bool:
        """Tell whether nothing more happens until an order comes."""
        return not self._flight.files and (self._current is None or self._current.phase is Phase.READY)

    def is_empty(self) -> bool:
        """Tell whether every assignment has ended."""
        return not (self._waiting or self._flight.files or self._current or self._awaiting or self._published)

    def retire(self) -> None:
        """Halt everything, keeping part files."""
        self.is_retiring = True
        halted = self._begun()
        for begun in halted:  # all of them before any is settled: what is set back would be begun anew
            begun.halt(discard=False)
        for begun in halted:
            self._settle(begun)
        while self._waiting:
            self._session_of(self._waiting.popleft()).halt(discard=False)

    def leave(self) -> None:
        """Save what is worth it, at once; nobody listens any more."""
        for begun in self._begun():
            begun.leave()

    def _set_umask(self, umask: int) -> None:
        if umask != self._umask:
            os.umask(umask)
            self._umask = umask

    def _take(self, order: Assign) -> None:
        self._facilities.folders.look_again()
        if self.is_retiring:
            self._session_of(order).halt(discard=False)
        elif self._facilities.folders.has_moved:
            self._facilities.reports.add(Returned(lease=order.lease))
        else:
            self._waiting.append(order)

    def _refuse(self, lease: str) -> None:
        self._facilities.reports.add(
            Failed(
                lease=lease,
                code=FailureCode.INTERNAL,
                message="a defect of autodl: the worker could not read its assignment",
                http_status=None,
                retry_after_s=None,
                bytes_done=0,
                bytes_received=0,
                part=None,
            )
        )

    def _publish(self, lease: str) -> None:
        session = self._find(lease)
        if session is None:
            return
        session.publish()
        if session.phase is Phase.PUBLISHING and session not in self._published:
            self._published.append(session)
        self._settle(session)

    def _halt(self, order: Halt) -> None:
        for assign in self._waiting:
            if assign.lease == order.lease:
                self._waiting.remove(assign)
                self._session_of(assign).halt(discard=order.discard)
                return
        begun = self._find(order.lease)
        if begun is not None:
            begun.halt(discard=order.discard)
            self._settle(begun)

    def _give_back(self, recalled: set[str]) -> None:
        waiting, self._waiting = self._waiting, deque()
        for assign in waiting:
            if assign.lease in recalled:
                self._facilities.reports.add(Returned(lease=assign.lease))
            else:
                self._waiting.append(assign)
        for begun in self._begun():
            lease = begun.assign.lease
            if lease not in recalled or begun.phase is Phase.ENDED:
                continue
            if isinstance(begun, SmallFile) and begun.phase is Phase.WAITING:  # set back
                self._flight.give_up(begun)
                self._facilities.reports.add(Returned(lease=lease))
            else:
                self._facilities.reports.add(Retained(lease=lease))
        self._settle_flight()

    def _steer(self, order: SetRate | Grant) -> None:
        for place, assign in enumerate(self._waiting):
            if assign.lease == order.lease:
                self._waiting[place] = _with_order(assign, order)
                self._tell_yielded(order)
                return
        begun = self._find(order.lease)
        if begun is None or begun.phase is Phase.ENDED:
            return  # it ended in this very turn of the loop: nothing is said of it any more
        match order:
            case SetRate():
                begun.set_rate(order.limit_rate_bps)
            case Grant():
                self._grant(begun, order.connections)
        self._settle_flight()
        begun = self._find(order.lease)  # which may be another one now
        is_set_back = any(assign.lease == order.lease for assign in self._waiting)
        if is_set_back or (begun is not None and begun.phase is not Phase.ENDED):  # else it has just failed
            self._tell_yielded(order)

    def _grant(self, begun: Begun, connections: tuple[int, ...]) -> None:
        if begun is self._current:
            self._flight.narrow(max(0, connections[0] - 1))
            self._granted = connections if self._flight.files else None
            connections = _left_of(connections, self._flight.asking_num())
        begun.grant(connections)
        self._flight.narrow(MOST_AWAITING)

    def _tell_yielded(self, order: SetRate | Grant) -> None:
        if isinstance(order, Grant):
            self._facilities.reports.add(Yielded(lease=order.lease, connections=order.connections))

    def _discard(self, order: Discard) -> None:
        try:
            discard_part(self._facilities.folders.open(order.dir, create=False), order.part, order.tag)
        except (TaskFailed, OtherFolder, OSError) as error:
            logger.info("a part file could not be removed", extra={"event": "part_left", "reason": str(error)})
        self._facilities.reports.add(Discarded(lease=order.lease))

    def _finish_published(self) -> None:
        published, self._published = self._published, []
        groups: dict[int, list[Begun]] = {}
        for session in published:
            groups.setdefault(id(session.published_in()[0]), []).append(session)
        for sessions in groups.values():
            folder, fd = sessions[0].published_in()
            done = self._tell_published(sessions, folder)
            if self._facilities.settings.durable:
                self._facilities.sync.submit(SyncJob(run=_folder_sync(folder, fd), done=done))
            else:
                done(None)

    def _tell_published(self, sessions: list[Begun], folder: Folder) -> Callable[[OSError | None], None]:
        def tell(error: OSError | None) -> None:
            path = folder.path
            try:
                path = folder.path_now()
            except FileNotFoundError as lost:
                error = error or lost
            for session in sessions:
                session.published(path, error)
                self._settle(session)

        return tell

    def _return_waiting(self) -> None:
        while self._waiting:
            self._facilities.reports.add(Returned(lease=self._waiting.popleft().lease))

    def settle_all(self) -> None:
        """Put every session where its phase belongs, after jobs of the sync thread came back."""
        for session in [one for one in self._awaiting.values() if one.phase is Phase.ENDED]:
            self._settle(session)
        self._settle_current()

    # --- what small files ask (small_file.Place) ---

    def takes_session_of(self, file: SmallFile) -> bool:
        """Tell whether a small file's session would be the only one, and older than all that wait."""
        self._settle_current()
        return self._current is None and self._flight.is_first(file)

    def replace(self, file: SmallFile, session: Session) -> None:
        """Go on with a session in the place of the small file that was begun."""
        self._flight.give_up(file)
        self._current = session
        if self._flight.files:
            self._granted = session.assign.connections
            session.grant(_left_of(self._granted, self._flight.asking_num()))

    def _settle_current(self) -> None:
        if self._current is not None:
            self._settle(self._current)

    def _settle_flight(self) -> None:
        """Put every small file where its phase belongs; what is set back goes before all that wait."""
        if self._flight.files:
            landed, again = self._flight.land()
            for small in landed:
                if small.phase is not Phase.ENDED:
                    self._awaiting[small.assign.lease] = small
            if again:
                self._waiting.extendleft(reversed(again))
        if not self._flight.files and self._granted is not None:
            granted, self._granted = self._granted, None
            if self._current is not None:
                self._current.grant(granted)

    def _settle(self, session: Begun) -> None:
        lease = session.assign.lease
        if session.phase is Phase.ENDED:
            self._awaiting.pop(lease, None)
            if session is self._current:
                self._current = self._granted = None
            elif isinstance(session, SmallFile):
                self._settle_flight()
        elif (
            session is self._current
            and session.phase in (Phase.SYNCING, Phase.READY, Phase.PUBLISHING)
            and not session.is_visible
        ):
            self._awaiting[lease] = session
            self._current = self._granted = None

    def _session_of(self, assign: Assign) -> Session:
        return Session(assign, self._facilities)

    def _find(self, lease: str) -> Begun | None:
        if self._current is not None and self._current.assign.lease == lease:
            return self._current
        return self._awaiting.get(lease) or self._flight.find(lease)

    def _begun(self) -> list[Begun]:
        current = [self._current] if self._current is not None else []
        return [*current, *self._flight.files, *self._awaiting.values()]


def _with_order(assign: Assign, order: SetRate | Grant) -> Assign:
    """Return an assignment that has yet to begin, with what it may take from now on."""
    match order:
        case SetRate():
            return replace(assign, limit_rate_bps=order.limit_rate_bps)
        case Grant():
            return replace(assign, connections=order.connections)


def _left_of(connections: tuple[int, ...], used: int) -> tuple[int, ...]:
    """Return what a session may use beside small files of its own host, which come to their end in a moment."""
    return (max(1, connections[0] - used), *connections[1:]) if used else connections


def _umask_of(assign: Assign) -> int:
    """Return whom the task's files are not for; never their owner, who must be able to go on with a part file."""
    asked = assign.options.umask
    return DEFAULT_UMASK if asked is None else asked & 0o077


def _folder_sync(folder: Folder, fd: int) -> Callable[[Fsync], None]:
    return lambda _: folder.sync(fd)
