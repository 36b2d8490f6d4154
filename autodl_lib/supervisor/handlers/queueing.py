"""add: queue URLs.

Runs as: the supervisor.  Talks to: the store.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import fields
from operator import attrgetter

from autodl_lib.contract.errors import InvalidParams, NotAllowed
from autodl_lib.contract.replies.tasks import Ids
from autodl_lib.contract.requests.adding import MAX_COPIES_LENGTH, Add
from autodl_lib.contract.task import is_reserved_name
from autodl_lib.contract.transfer_options import NO_OPTIONS, TransferOptions
from autodl_lib.contract.urls import check_url
from autodl_lib.privilege.accounts import find_account_by_name
from autodl_lib.store.rows import NewTasks, options_to_text
from autodl_lib.store.transaction import Insertion
from autodl_lib.supervisor.handlers.context import Call
from autodl_lib.supervisor.handlers.option_checks import check_label, check_options, check_path

_NAMES = tuple(field.name for field in fields(TransferOptions))
_values_of = attrgetter(*_NAMES)
_DEFAULTS = _values_of(NO_OPTIONS)

MAX_HEADERS_LENGTH = 32768

_PIECE = 1000
"""URLs that are checked in one go, some milliseconds."""


async def add(call: Call, request: Add) -> Ids:
    """Queue URLs; the reply is sent when they are on disk."""
    options = options_of(request)
    _check(request, options)
    bulk = call.service.bulk
    uid = call.caller.uid
    if os.geteuid() not in (0, uid):
        raise NotAllowed(f"this daemon is the user's with uid {os.geteuid()}, and can download for that user alone")
    if len(request.urls) <= _PIECE and uid not in bulk:
        return await _add(call, request, options)
    lock = bulk.setdefault(uid, asyncio.Lock())
    try:
        async with lock:
            return await _add(call, request, options)
    finally:
        if not lock.locked():
            bulk.pop(uid, None)


async def _add(call: Call, request: Add, options: TransferOptions) -> Ids:
    folder = await folder_of(call, request.dir)
    hosts: list[str] = []
    call.pace.begin()
    for start in range(0, len(request.urls), _PIECE):
        if start:
            await call.pace.next()
        hosts += [check_url(url) for url in request.urls[start : start + _PIECE]]
    with call.service.room_for(call.caller.uid, len(hosts)):
        lot = _lot(call, request, options, folder, hosts)
        ids = await call.service.store.write(Insertion(lot=lot, actor=call.caller.actor))
    call.log_change("add", ids)
    return Ids(ids=tuple(ids))


def _lot(call: Call, request: Add, options: TransferOptions, folder: str, hosts: list[str]) -> NewTasks:
    return NewTasks(
        uid=call.caller.uid,
        owner=call.caller.name,
        urls=request.urls,
        hosts=tuple(hosts),
        dir=folder,
        output=request.output,
        headers=request.headers,
        limit_rate_bps=request.limit_rate_bps,
        on_conflict=request.on_conflict,
        priority=request.priority,
        paused=request.paused,
        label=request.label,
        options=options,
    )


async def folder_of(call: Call, path: str) -> str:
    """Return the absolute path of a folder that may begin with `~` or `~NAME`, as the caller's shell has it.

    What a worker says of its folder is never asked for, so this must be known here. A name that nobody has stays, and
    the worker says so.
    """
    if path.startswith("~"):
        named, _, rest = path.partition("/")
        home = call.caller.home if named == "~" else await _home_of(call, named[1:])
        if home is not None and home.startswith("/"):
            path = f"{home.rstrip('/')}/{rest}"
    return path.rstrip("/") or "/"


async def _home_of(call: Call, name: str) -> str | None:
    async with call.service.looking_up:
        account = await asyncio.to_thread(find_account_by_name, name)
    return account.home if account is not None else None


def options_of(request: Add) -> TransferOptions:
    """Return the part of a request that the worker obeys."""
    values = _values_of(request)
    # Most tasks have none: those all share the same ones.
    return NO_OPTIONS if values == _DEFAULTS else TransferOptions(**dict(zip(_NAMES, values, strict=True)))


def _check(request: Add, options: TransferOptions) -> None:
    check_path("dir", request.dir)
    if request.output is not None:
        _check_name(request.output)
        if len(request.urls) > 1:
            raise InvalidParams("output names one file: give a single URL with it")
    for header in request.headers:
        name, colon, _ = header.partition(":")
        if not colon or not name.strip() or any(c in header for c in "\r\n\0"):
            raise InvalidParams("a header is one line such as 'Accept: text/plain'")
    if request.label is not None:
        check_label(request.label)
    if options is not NO_OPTIONS:
        check_options(options, urls_num=len(request.urls))
    headers_length = sum(map(len, request.headers))
    if headers_length > MAX_HEADERS_LENGTH:
        raise InvalidParams(f"the headers are over {MAX_HEADERS_LENGTH} characters long")
    copy_length = len(request.dir) + headers_length + len(options_to_text(options))
    if copy_length * len(request.urls) > MAX_COPIES_LENGTH:
        raise InvalidParams(
            "too many options for so many URLs: each task keeps its own copy of them; add fewer at once"
        )


def _check_name(name: str) -> None:
    if not name or name in (".", "..") or "/" in name or "\0" in name or len(name.encode()) > 255:
        raise InvalidParams(f"output must be a plain file name of at most 255 bytes, without a slash: {name!r}")
    if is_reserved_name(name):
        raise InvalidParams(f"output must not be a name of part or control files, such as {name!r}")
