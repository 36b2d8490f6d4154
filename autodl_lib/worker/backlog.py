"""The worker's assignments: who waits, who transfers, who awaits leave to publish.

Runs as: the task's owner.  Talks to: sessions and small files; answers orders.
Whatever may come at once begins as a SmallFile, which has a session take its place where that is not enough.
One session transfers at a time. One that completed before anybody heard of its start makes room for the next at
once, so small files flow; one that was visible keeps its place until it has ended.
Invariants: at most one visible session; at most MOST_AWAITING complete ones; a waiting assignment goes back as soon
as the one before it takes long.
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

Begun = Session | SmallFile

logger = logging.getLogger(__name__)


class Backlog:
    """All assignments of one worker."""

    def __init__(self, facilities: Facilities) -> None:
        self.is_retiring = False
        self._facilities = facilities
        self._waiting: deque[Assign] = deque()
        self._current: Begun | None = None
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
        started = False
        while self._current is None and self._waiting and len(self._awaiting) < self._most_awaiting:
            assign = self._waiting.popleft()
            self._set_umask(_umask_of(assign))  # only the current one makes files and folders
            is_small = may_come_at_once(assign)
            begun = SmallFile(assign, self._facilities, self._replace) if is_small else self._session_of(assign)
            self._current = begun
            begun.begin()
            self._settle_current()
            if self._facilities.folders.has_moved:
                self._return_waiting()
            started = True
        return started

    def deadline_mono(self) -> float:
        """Return when `step` has something to do by time alone."""
        if self._current is None:
            return float("inf")
        if self._waiting:
            return min(self._current.wake_mono, self._current.begun_mono + RETURN_AFTER_S)
        return self._current.wake_mono

    def is_resting(self) -> bool:
        """Tell whether nothing more happens until an order comes."""
        return self._current is None or self._current.phase is Phase.READY

    def is_empty(self) -> bool:
        """Tell whether every assignment has ended."""
        return not (self._waiting or self._current or self._awaiting or self._published)

    def retire(self) -> None:
        """Halt everything, keeping part files."""
        self.is_retiring = True
        for begun in self._begun():
            begun.halt(discard=False)
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
            if begun.assign.lease in recalled and begun.phase is not Phase.ENDED:
                self._facilities.reports.add(Retained(lease=begun.assign.lease))

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
                begun.grant(order.connections)
        begun = self._find(order.lease)  # which may be another one now
        if begun is not None and begun.phase is not Phase.ENDED:  # a failure may have come to light just now
            self._tell_yielded(order)

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

    def _replace(self, session: Session) -> None:
        """Go on with a session in the place of the small file that was begun."""
        self._current = session

    def _settle_current(self) -> None:
        if self._current is not None:
            self._settle(self._current)

    def _settle(self, session: Begun) -> None:
        lease = session.assign.lease
        if session.phase is Phase.ENDED:
            self._awaiting.pop(lease, None)
            if session is self._current:
                self._current = None
        elif (
            session is self._current
            and session.phase in (Phase.SYNCING, Phase.READY, Phase.PUBLISHING)
            and not session.is_visible
        ):
            self._awaiting[lease] = session
            self._current = None

    def _session_of(self, assign: Assign) -> Session:
        return Session(assign, self._facilities)

    def _find(self, lease: str) -> Begun | None:
        if self._current is not None and self._current.assign.lease == lease:
            return self._current
        return self._awaiting.get(lease)

    def _begun(self) -> list[Begun]:
        current = [self._current] if self._current is not None else []
        return [*current, *self._awaiting.values()]


def _with_order(assign: Assign, order: SetRate | Grant) -> Assign:
    """Return an assignment that has yet to begin, with what it may take from now on."""
    match order:
        case SetRate():
            return replace(assign, limit_rate_bps=order.limit_rate_bps)
        case Grant():
            return replace(assign, connections=order.connections)


def _umask_of(assign: Assign) -> int:
    """Return whom the task's files are not for; never their owner, who must be able to go on with a part file."""
    asked = assign.options.umask
    return DEFAULT_UMASK if asked is None else asked & 0o077


def _folder_sync(folder: Folder, fd: int) -> Callable[[Fsync], None]:
    return lambda _: folder.sync(fd)
