"""Leases and the orders that go with them: what a worker is told to do, and what is kept of it here.

Runs as: the supervisor.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

import secrets

from autodl_lib.contract.worker_messages import Assign, Discard, LeasePhase
from autodl_lib.store.rows import Leftover, TaskSpec
from autodl_lib.supervisor.worker_handle import Lease


def download(spec: TaskSpec, database_tag: str, connections: int) -> tuple[Lease, Assign]:
    """Return the lease and the order of a download; `connections` is how many a file may use if it doesn't say."""
    lease = Lease(
        id=secrets.token_hex(8),
        task_id=spec.id,
        uid=spec.uid,
        streak=spec.streak,
        bytes_before=spec.bytes_done,
        identity=spec.identity,
        may_be_current=spec.options.if_newer,
    )
    order = Assign(
        lease=lease.id,
        task_id=spec.id,
        tag=f"{database_tag}:{spec.id}",
        url=spec.url,
        dir=spec.dir,
        output=spec.output,
        headers=spec.headers,
        limit_rate_bps=spec.limit_rate_bps,
        on_conflict=spec.on_conflict,
        name=spec.name,
        part=spec.part,
        identity=spec.identity,
        options=spec.options,
        connections=(spec.options.connections or connections,) * (1 + len(spec.options.mirrors)),
    )
    return lease, order


def removal(leftover: Leftover, database_tag: str) -> tuple[Lease, Discard]:
    """Return the lease and the order of removing a part file that a settled task left."""
    lease = Lease(
        id=secrets.token_hex(8),
        task_id=leftover.id,
        uid=leftover.uid,
        streak=0,
        bytes_before=0,
        identity=None,
        phase=LeasePhase.DISCARDING,
    )
    tag = f"{database_tag}:{leftover.id}"
    return lease, Discard(lease=lease.id, dir=leftover.dir, part=leftover.part, tag=tag)
