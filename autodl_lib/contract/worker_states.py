"""A worker's life as the supervisor sees it, that of a lease, and which report may come when.

Runs as: everyone.  Talks to: nobody; no I/O.
Invariants: a worker is hostile once the network has touched it, so the supervisor checks every report against the lease
that it carries, WORKER_PERMITS and LEASE_PERMITS; one that does not fit retires the worker.
"""

from __future__ import annotations

from enum import StrEnum

from autodl_lib.contract.worker_messages import (
    REPORTS,
    Bound,
    Current,
    Discarded,
    Failed,
    Finished,
    Halted,
    Note,
    Pong,
    Progress,
    Ready,
    Retained,
    Returned,
    Started,
    Yielded,
)


class WorkerState(StrEnum):
    """A worker's life as the pool sees it."""

    SPAWNED = "spawned"
    BOUND = "bound"
    BUSY = "busy"
    IDLE = "idle"
    RETIRED = "retired"


class LeasePhase(StrEnum):
    """How far a worker is with one assignment."""

    ASSIGNED = "assigned"
    STARTED = "started"
    READY = "ready"
    PUBLISHING = "publishing"
    DISCARDING = "discarding"
    ENDED = "ended"


WORKER_PERMITS: dict[WorkerState, frozenset[str]] = {
    WorkerState.SPAWNED: frozenset({Bound.type}),
    WorkerState.BOUND: frozenset(),
    WorkerState.IDLE: frozenset({Pong.type}),
    WorkerState.BUSY: frozenset(report.type for report in REPORTS) - {Bound.type},
    WorkerState.RETIRED: frozenset(),
}
"""Which reports the pool takes from a worker, by the worker's state."""

WORKER_MOVES: dict[WorkerState, frozenset[WorkerState]] = {
    WorkerState.SPAWNED: frozenset({WorkerState.BOUND, WorkerState.RETIRED}),
    WorkerState.BOUND: frozenset({WorkerState.BUSY, WorkerState.IDLE, WorkerState.RETIRED}),
    WorkerState.BUSY: frozenset({WorkerState.IDLE, WorkerState.RETIRED}),
    WorkerState.IDLE: frozenset({WorkerState.BUSY, WorkerState.RETIRED}),
    WorkerState.RETIRED: frozenset(),
}
"""Where a worker's state may go."""

LEASE_PERMITS: dict[LeasePhase, dict[str, LeasePhase]] = {
    LeasePhase.ASSIGNED: {
        Started.type: LeasePhase.STARTED,
        Note.type: LeasePhase.ASSIGNED,
        Yielded.type: LeasePhase.ASSIGNED,
        Retained.type: LeasePhase.ASSIGNED,
        # Only where the task asked for what is newer.
        Current.type: LeasePhase.ENDED,
        Ready.type: LeasePhase.READY,
        # Only where the assignment carried an identity: it had been published before.
        Finished.type: LeasePhase.ENDED,
        Failed.type: LeasePhase.ENDED,
        Halted.type: LeasePhase.ENDED,
        Returned.type: LeasePhase.ENDED,
    },
    LeasePhase.STARTED: {
        Started.type: LeasePhase.STARTED,
        Progress.type: LeasePhase.STARTED,
        Note.type: LeasePhase.STARTED,
        Yielded.type: LeasePhase.STARTED,
        Retained.type: LeasePhase.STARTED,
        Ready.type: LeasePhase.READY,
        Failed.type: LeasePhase.ENDED,
        Halted.type: LeasePhase.ENDED,
    },
    LeasePhase.READY: {
        Yielded.type: LeasePhase.READY,
        Retained.type: LeasePhase.READY,
        Failed.type: LeasePhase.ENDED,
        Halted.type: LeasePhase.ENDED,
    },
    LeasePhase.PUBLISHING: {
        Yielded.type: LeasePhase.PUBLISHING,
        Retained.type: LeasePhase.PUBLISHING,
        # The name was taken in the meantime: ready again, under another one.
        Ready.type: LeasePhase.READY,
        Finished.type: LeasePhase.ENDED,
        Failed.type: LeasePhase.ENDED,
        Halted.type: LeasePhase.ENDED,
    },
    LeasePhase.DISCARDING: {
        Discarded.type: LeasePhase.ENDED,
    },
    LeasePhase.ENDED: {},
}
"""Which report moves a lease from which phase to which; what is absent is refused."""
