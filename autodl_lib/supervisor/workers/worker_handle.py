"""One worker as the supervisor knows it: its process, its pipe, its state, and what was assigned to it.

Runs as: the supervisor.  Talks to: the worker's pipe, which never blocks the loop.
Invariants: `state` moves along WORKER_MOVES alone, a lease's phase along LEASE_PERMITS alone.
How it fails: a worker that doesn't read its orders is killed when OUTBOX_LIMIT_BYTES wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from autodl_lib.contract.codec import dumps, message_to_json, prepare
from autodl_lib.contract.states import TaskEvent
from autodl_lib.contract.task import TaskId, Uid
from autodl_lib.contract.worker_messages import Assign, Bound, FileIdentity, Order, Ping, Pong, Report
from autodl_lib.contract.worker_states import LEASE_PERMITS, WORKER_MOVES, WORKER_PERMITS, LeasePhase, WorkerState
from autodl_lib.store.rows import Actor

OUTBOX_LIMIT_BYTES = 8 * 1024 * 1024
MAX_REPORTS_PER_LEASE = 200
PROGRESS_PER_S = 10
PROGRESS_BURST = 200
MAX_ROOM = 512
QUICK_PACE_S = 0.01
_LEAST_PACE_S = 0.0005
_PACE_OF_S = 0.05
FRESH_S = 1.0
"""For so long, a new worker does not make way for one in another folder: its start is to be worth it."""

TURN_S = 0.2
"""For so long, a slot that has come to a user is theirs, as far as their tasks are short, though others wait."""

ROOM_HORIZON_S = 0.3
"""How much work, by a worker's recent pace, is handed to it ahead."""

UNKNOWN_PACE_S = 2 * ROOM_HORIZON_S

prepare(Assign)


def room_of(pace_s: float, for_s: float = ROOM_HORIZON_S) -> int:
    """Return how many assignments a worker of such a pace may have at once, to be done `for_s` from now."""
    return max(1, min(MAX_ROOM, int(for_s / pace_s)))


class ReportRefused(Exception):
    """A worker said something that it may not say now."""


@dataclass(slots=True, kw_only=True)
class Lease:
    """One assignment; `outcome` is what its owner has asked for meanwhile (PAUSE, CANCEL, CLEAR or INTERRUPT),
    `actor` who that was, `why` it is so where nobody asked.

    `dir` is where it saves to, `folder` what a worker must serve to have it, `sources` the host of its URL and of
    each mirror, `connections` what it wants there, `limit_rate_bps` its own limit; `grants` counts the grants that it
    was sent. `recalled`: the worker was asked to give it back unless it has begun; set when that is known, or it ended.
    """

    id: str
    task_id: TaskId
    uid: Uid
    streak: int
    bytes_before: int
    identity: FileIdentity | None
    stuck_since: float | None = None
    folder: str = ""
    dir: str = ""
    url: str = ""
    sources: tuple[str, ...] = ()
    connections: int = 1
    limit_rate_bps: int = 0
    grants: int = 0
    may_be_current: bool = False
    phase: LeasePhase = LeasePhase.ASSIGNED
    assigned_at: float = field(default_factory=time.time)
    begun_mono: float = field(default_factory=time.monotonic)
    outcome: TaskEvent | None = None
    actor: Actor | None = None
    why: str | None = None
    halting: bool = False
    recalled: asyncio.Event | None = None
    reports: int = 0
    size_bytes: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Worker:
    """A live worker."""

    def __init__(self, key: str, first: Lease, process: BaseProcess, orders: Connection, pidfd: int) -> None:
        self.key = key
        self.uid = first.uid
        self.folder = first.folder
        """The one folder that it may write to, as its tasks name it; "" where it may write to all of its user."""
        self.process = process
        self.pid = process.pid or 0
        self.pidfd = pidfd
        self.state = WorkerState.SPAWNED
        self.retiring = False
        self.is_killed = False
        self.is_distrusted = False
        """Whether it has said what it may not: nothing more of it is believed."""
        self.has_ended = False
        self.leases: dict[str, Lease] = {}
        self.idle_timer: asyncio.TimerHandle | None = None
        self.unanswered = 0
        """How often it was looked after since it was asked for an answer that has not come."""
        self.is_useless = False
        """Whether it can't serve its folder any more: another one is there now."""
        self._has_served = False
        self._started_mono = self._turn_mono = time.monotonic()
        self._progress_left = float(PROGRESS_BURST)
        self._progress_mono = time.monotonic()
        self.pace_s = UNKNOWN_PACE_S
        """How long its recent assignments took, each."""
        self._has_pace = False
        self._last_end_mono = 0.0
        self._ends_num = 0
        self._ends_since_mono = 0.0
        """How many assignments have ended since when, not yet taken into the pace."""
        self._visible: Lease | None = None
        self._orders = orders
        self._outbox = bytearray()
        self._waiting = False
        self._on_kill: Callable[[], None] | None = None
        self._loop = asyncio.get_running_loop()
        os.set_blocking(orders.fileno(), False)

    @property
    def is_quick(self) -> bool:
        """Whether its recent assignments took milliseconds, and the present one does not take longer."""
        visible = self._visible
        is_busy_long = visible is not None and visible.phase is LeasePhase.STARTED
        return self.pace_s <= QUICK_PACE_S and not is_busy_long

    @property
    def is_going(self) -> bool:
        """Whether it was told to go, or killed."""
        return self.retiring or self.is_killed

    @property
    def is_fresh(self) -> bool:
        """Whether it was started only just now."""
        return time.monotonic() < self._started_mono + FRESH_S

    @property
    def room(self) -> int:
        """How many assignments it may have at once, by the pace of its recent ones."""
        if self.retiring:
            return 0
        return room_of(self.pace_s)

    @property
    def turn_room(self) -> int:
        """How many of them, while others wait for its slot: 0 when its turn is over."""
        left_s = self._turn_mono + TURN_S - time.monotonic()
        return room_of(self.pace_s, left_s) if left_s > 0 and not self.retiring else 0

    def begin_turn(self) -> None:
        """Its slot has come to its user again."""
        self._turn_mono = time.monotonic()

    def move(self, state: WorkerState) -> None:
        """Change the state along the table."""
        if state not in WORKER_MOVES[self.state]:
            raise ReportRefused(f"a worker that is {self.state} can't become {state}")
        self.state = state

    def admit(self, report: Report) -> Lease | None:
        """Check a report against the tables and move its lease; None for `bound` and `pong`, which have none.

        Raises: ReportRefused.
        """
        kind = report.type
        if kind not in WORKER_PERMITS[self.state]:
            raise ReportRefused(f"{kind} from a worker that is {self.state}")
        if isinstance(report, Bound):
            if not secrets.compare_digest(report.lease.encode(), self.key.encode()):
                raise ReportRefused("bound with a wrong key")
            # Its start is not to be counted as work.
            self._last_end_mono = self._ends_since_mono = self._turn_mono = time.monotonic()
            return None
        if isinstance(report, Pong):
            if not self.unanswered:
                raise ReportRefused("pong without a ping")
            self.unanswered = 0
            return None
        lease = self.leases.get(report.lease)
        if lease is None:
            raise ReportRefused(f"{kind} without a lease")
        phase = LEASE_PERMITS[lease.phase].get(kind)
        self._charge(kind, lease)
        if phase is None:
            raise ReportRefused(f"{kind} for an assignment that is {lease.phase}")
        if kind == "finished" and lease.phase is LeasePhase.ASSIGNED and lease.identity is None:
            raise ReportRefused("finished without having been ready")
        if kind == "current" and not lease.may_be_current:
            raise ReportRefused("current, though what is newer was not asked for")
        if kind == "halted" and not lease.halting and not self.retiring:
            raise ReportRefused("halted without an order to")
        if kind == "retained":
            _take_answer(lease)
        elif kind == "returned":
            if lease.recalled is None:
                self._take_back(lease)
        elif phase is LeasePhase.ENDED:
            self._has_served = True
        lease.phase = phase
        if phase is LeasePhase.STARTED:
            self._visible = lease
        if kind == "halted":
            self._turn_mono = -math.inf  # it was stopped, not short
        return lease

    def _take_back(self, lease: Lease) -> None:
        """What it did not begin goes back; nothing more is handed to it ahead, or that would come back at once.

        Where nothing was before it, another folder has come into the place of that which the worker is confined to. A
        new worker has seen no other, so that not even one that lies can give a task back for ever.
        """
        earlier = itertools.takewhile(lambda other: other is not lease, self.leases.values())
        if all(other.phase is LeasePhase.ENDED for other in earlier):
            if not (self._has_served and self.folder):
                raise ReportRefused("returned, though nothing is before it")
            self.is_useless = True
        self.pace_s = UNKNOWN_PACE_S

    def _charge(self, kind: str, lease: Lease) -> None:
        """Bound what a worker says: some reports an assignment, and progress by the second."""
        if kind != "progress":
            lease.reports += 1
            if lease.reports > MAX_REPORTS_PER_LEASE + lease.grants:
                raise ReportRefused(f"more than {MAX_REPORTS_PER_LEASE} reports for one assignment")
            return
        now = time.monotonic()
        self._progress_left = min(PROGRESS_BURST, self._progress_left + (now - self._progress_mono) * PROGRESS_PER_S)
        self._progress_mono = now
        self._progress_left -= 1
        if self._progress_left < 0:
            raise ReportRefused(f"more than {PROGRESS_PER_S} progress reports a second")

    def ask(self) -> int:
        """Ask for an answer, unless one is due already; return how often that has been in vain."""
        if not self.unanswered:
            self.send(Ping())
        self.unanswered += 1
        return self.unanswered - 1

    def excuse(self) -> None:
        """Count anew how often it was asked in vain: what it says was not read for a while."""
        self.unanswered = min(self.unanswered, 1)

    def set_pace(self, leases: Sequence[Lease]) -> None:
        """Take in that assignments, which occupied the worker, have just come to their end: all that are heard of now.

        The news of many come together: so what counts is how many ended in some time, not how far apart they are heard.
        """
        now = time.monotonic()
        begun_mono = min(lease.begun_mono for lease in leases)
        self._ends_since_mono += max(0.0, begun_mono - self._last_end_mono)  # then it had nothing to do
        self._last_end_mono = now
        self._ends_num += len(leases)
        elapsed_s = now - self._ends_since_mono
        is_first = not self._has_pace and self.pace_s == UNKNOWN_PACE_S
        if elapsed_s < _PACE_OF_S and not is_first:
            return
        weight = 1.0 if is_first else 0.5
        each_s = elapsed_s / self._ends_num
        self.pace_s = max(_LEAST_PACE_S, (1 - weight) * min(self.pace_s, UNKNOWN_PACE_S) + weight * each_s)
        self._has_pace = True
        self._ends_num, self._ends_since_mono = 0, now

    def send(self, *orders: Order) -> None:
        """Write orders to the pipe at the end of this turn of the loop; a dead worker's pipe swallows them."""
        if not self._outbox:
            self._loop.call_soon(self._flush)
        for order in orders:
            self._outbox += dumps(message_to_json(order))
        if len(self._outbox) > OUTBOX_LIMIT_BYTES:
            self.kill()

    def _flush(self) -> None:
        descriptor = self._orders.fileno() if not self._orders.closed else -1
        if descriptor < 0:
            self._outbox.clear()
        try:
            while self._outbox:
                written = os.write(descriptor, self._outbox[:65536])
                del self._outbox[:written]
        except BlockingIOError:
            self._waiting = True
            self._loop.add_writer(descriptor, self._flush)
            return
        except OSError:
            self._outbox.clear()
        if self._waiting:
            self._waiting = False
            self._loop.remove_writer(descriptor)

    def kill(self) -> None:
        """End the process at once; its end is seen through the pidfd."""
        if self.pidfd < 0:
            return
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        if not self.is_killed and self._on_kill is not None:
            self._on_kill()
        self.is_killed = True

    def on_exit(self, callback: Callable[[], None], *, killed: Callable[[], None]) -> None:
        """Call back on the loop when the process has ended, and `killed` when it has been killed the first time."""
        self._on_kill = killed
        self._loop.add_reader(self.pidfd, callback)

    def release(self) -> None:
        """Close what belongs to a worker that has ended, and let go of what leads back to it."""
        self.state = WorkerState.RETIRED
        self._on_kill = None
        if self.idle_timer is not None:
            self.idle_timer.cancel()
            self.idle_timer = None
        self._loop.remove_reader(self.pidfd)
        os.close(self.pidfd)
        self.pidfd = -1
        if self._waiting:
            self._waiting = False
            self._loop.remove_writer(self._orders.fileno())
        self._orders.close()


def _take_answer(lease: Lease) -> None:
    """A worker keeps what it was asked to give back."""
    if lease.recalled is None or lease.recalled.is_set():
        raise ReportRefused("retained, though it was not recalled")
    lease.recalled.set()
