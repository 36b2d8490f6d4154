"""Leases and the orders that go with them: what a worker is told to do, and what is kept of it here.

Runs as: the supervisor.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

import secrets

from autodl_lib import __version__
from autodl_lib.contract.errors import BadUrl
from autodl_lib.contract.settings import TransferSection
from autodl_lib.contract.urls import check_url
from autodl_lib.contract.worker_messages import Assign, Discard, TransferSettings
from autodl_lib.contract.worker_states import LeasePhase
from autodl_lib.store.rows import Leftover, TaskSpec
from autodl_lib.supervisor.workers.worker_handle import Lease

_WORD_BYTES = 8
_WORDS_AT_ONCE = 256


def obeyed(section: TransferSection) -> TransferSettings:
    """Return what workers are told of the settings."""
    return TransferSettings(
        connections=section.connections,
        connect_timeout_s=section.connect_timeout_s,
        stall_timeout_s=section.stall_timeout_s,
        min_free_bytes=section.min_free_bytes,
        durable=section.durable,
        max_redirects=section.max_redirects,
        user_agent=section.user_agent or f"autodl/{__version__}",
    )


class _Words:
    """Random words, each of them given out once: the kernel is asked for many at a time."""

    def __init__(self) -> None:
        self._left: list[str] = []

    def next(self) -> str:
        """Return another one, of _WORD_BYTES bytes in hexadecimal."""
        if not self._left:
            digits = secrets.token_hex(_WORD_BYTES * _WORDS_AT_ONCE)
            self._left = [digits[at : at + 2 * _WORD_BYTES] for at in range(0, len(digits), 2 * _WORD_BYTES)]
        return self._left.pop()


_words = _Words()


def lease_of(spec: TaskSpec, settings: TransferSection, folder: str) -> Lease:
    """Return the lease of a download for a worker of `folder`."""
    return Lease(
        id=_words.next(),
        task_id=spec.id,
        uid=spec.uid,
        folder=folder,
        dir=spec.dir,
        streak=spec.streak,
        stuck_since=spec.stuck_since,
        bytes_before=spec.bytes_done,
        identity=spec.identity,
        may_be_current=spec.options.if_newer,
        url=spec.url,
        sources=(spec.host, *map(_host_of, spec.options.mirrors)) if spec.options.mirrors else (spec.host,),
        connections=min(spec.options.connections or settings.connections, settings.connections_per_host),
        limit_rate_bps=spec.limit_rate_bps,
    )


def download(
    spec: TaskSpec, lease: Lease, database_tag: str, allotted: tuple[tuple[int, ...], int], *, is_again: bool
) -> Assign:
    """Return the order of a download; `allotted` is the connections and the rate that it begins with."""
    connections, limit_rate_bps = allotted
    return Assign(
        lease=lease.id,
        task_id=spec.id,
        tag=f"{database_tag}:{spec.id}",
        url=spec.url,
        dir=spec.dir,
        output=spec.output,
        headers=spec.headers,
        limit_rate_bps=limit_rate_bps,
        on_conflict=spec.on_conflict,
        name=spec.name,
        part=spec.part,
        identity=spec.identity,
        options=spec.options,
        connections=connections,
        is_again=is_again,
    )


def _host_of(mirror: str) -> str:
    try:
        return check_url(mirror)
    except BadUrl:  # the worker says so; here it counts as a host of its own
        return mirror


def removal(leftover: Leftover, database_tag: str, folder: str) -> tuple[Lease, Discard]:
    """Return the lease and the order of removing a part file that a settled task left."""
    lease = Lease(
        id=_words.next(),
        task_id=leftover.id,
        uid=leftover.uid,
        folder=folder,
        dir=leftover.dir,
        streak=0,
        bytes_before=0,
        identity=None,
        phase=LeasePhase.DISCARDING,
    )
    tag = f"{database_tag}:{leftover.id}"
    return lease, Discard(lease=lease.id, dir=leftover.dir, part=leftover.part, tag=tag)
