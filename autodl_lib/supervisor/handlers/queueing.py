"""add: queue URLs.

Runs as: the supervisor.  Talks to: the store.
"""

from __future__ import annotations

from dataclasses import fields

from autodl_lib.contract.errors import InvalidParams, QueueFull
from autodl_lib.contract.replies import Ids
from autodl_lib.contract.requests import Add
from autodl_lib.contract.states import TaskState
from autodl_lib.contract.transfer_options import TransferOptions
from autodl_lib.contract.urls import check_url
from autodl_lib.store.rows import NewTask
from autodl_lib.supervisor.handlers.context import Call

_WAITING_STATES = (TaskState.ENQUEUED, TaskState.RETRYING, TaskState.PAUSED)

MAX_HEADERS_LENGTH = 32768
MAX_COPIES_LENGTH = 8 * 1024 * 1024
"""All headers of an `add`, once for each of its URLs."""


async def add(call: Call, request: Add) -> Ids:
    """Queue URLs; the reply is sent when they are on disk."""
    _check(request)
    hosts = [check_url(url) for url in request.urls]
    adding = call.service.adding
    counters = call.service.store.counters
    queued = sum(counters.count(call.caller.uid, state) for state in _WAITING_STATES) + adding[call.caller.uid]
    most = call.service.settings.limits.queued
    if queued + len(request.urls) > most:
        raise QueueFull(f"you have {queued} tasks queued, and {most} is the most: wait, or clear some")
    options = options_of(request)
    tasks = [
        NewTask(
            uid=call.caller.uid,
            owner=call.caller.name,
            url=url,
            host=host,
            dir=request.dir,
            output=request.output,
            headers=request.headers,
            limit_rate_bps=request.limit_rate_bps,
            on_conflict=request.on_conflict,
            priority=request.priority,
            paused=request.paused,
            options=options,
        )
        for url, host in zip(request.urls, hosts, strict=True)
    ]
    adding[call.caller.uid] += len(tasks)
    try:
        ids = await call.service.store.write(lambda transaction: transaction.insert(tasks))
    finally:
        adding[call.caller.uid] -= len(tasks)
    return Ids(ids=tuple(ids))


def options_of(request: Add) -> TransferOptions:
    """Return the part of a request that the worker obeys."""
    return TransferOptions(**{field.name: getattr(request, field.name) for field in fields(TransferOptions)})


def _check(request: Add) -> None:
    if not request.dir.startswith(("/", "~")):
        raise InvalidParams(f"dir must be an absolute path, or begin with ~: {request.dir}")
    if "\0" in request.dir or len(request.dir.encode()) > 4000:
        raise InvalidParams("dir must be a path of at most 4000 bytes")
    if request.output is not None:
        _check_name(request.output)
        if len(request.urls) > 1:
            raise InvalidParams("output names one file: give a single URL with it")
    size = sum(map(len, request.headers))
    if size > MAX_HEADERS_LENGTH or size * len(request.urls) > MAX_COPIES_LENGTH:
        raise InvalidParams("too many headers for so many URLs: each task keeps its own copy of them")
    for header in request.headers:
        name, colon, value = header.partition(":")
        if not colon or not name.strip() or any(c in header for c in "\r\n\0"):
            raise InvalidParams("a header is one line such as 'Accept: text/plain'")
        del value


def _check_name(name: str) -> None:
    if not name or name in (".", "..") or "/" in name or "\0" in name or len(name.encode()) > 255:
        raise InvalidParams(f"output must be a plain file name of at most 255 bytes, without a slash: {name!r}")
