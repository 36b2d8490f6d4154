"""Queueing tasks, one or many thousands, at the cost of two statements for all that differ in their URLs alone.

Runs as: the supervisor, on the writer's thread.  Talks to: sqlite3.
Rows go to sqlite as one JSON text: a statement for each row would take the interpreter's lock back after each, and
wait there for the loop.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import time
from collections.abc import Iterable
from operator import attrgetter

from autodl_lib.contract.states import TaskState, Want
from autodl_lib.store.numbering import Numbering
from autodl_lib.store.rows import Actor, Moved, NewTasks, columns_of, options_to_text
from autodl_lib.store.statements import SQL

_ENCODER = json.JSONEncoder(ensure_ascii=False)


_SHARED = attrgetter(*[field.name for field in dataclasses.fields(NewTasks) if field.name not in ("urls", "hosts")])
"""What the tasks of one lot have in common."""


def is_like(lot: NewTasks, other: NewTasks) -> bool:
    """Tell whether the tasks of two lots differ in their URLs alone."""
    return bool(_SHARED(lot) == _SHARED(other))


def together(lots: Iterable[NewTasks]) -> NewTasks:
    """Return one lot of the tasks of several that are like each other."""
    first, *more = lots
    if not more:
        return first
    urls = [url for lot in (first, *more) for url in lot.urls]
    hosts = [host for lot in (first, *more) for host in lot.hosts]
    return dataclasses.replace(first, urls=tuple(urls), hosts=tuple(hosts))


def insert_tasks(connection: sqlite3.Connection, numbering: Numbering, lot: NewTasks, actor: Actor | None) -> Moved:
    """Queue tasks, with a row of history each, and return what was queued; their numbers ascend."""
    ids = numbering.take(lot.uid, len(lot.urls))
    state, want = (TaskState.PAUSED, Want.PAUSE) if lot.paused else (TaskState.ENQUEUED, Want.RUN)
    bound = {
        "rows": _ENCODER.encode(list(zip(ids, lot.urls, lot.hosts, strict=True))),
        "ids": json.dumps(ids),
        "uid": lot.uid,
        "owner": lot.owner,
        "dir": lot.dir,
        "output": lot.output,
        "headers": json.dumps(lot.headers) if lot.headers else "[]",
        "limit_rate_bps": lot.limit_rate_bps,
        "options": options_to_text(lot.options),
        "on_conflict": lot.on_conflict.value,
        "priority": lot.priority,
        "label": lot.label,
        "state": state.value,
        "want": want.value,
        "now": time.time(),
    }
    bound |= columns_of(actor)
    connection.execute(SQL["insert_tasks"], bound)
    connection.execute(SQL["log_add"], bound)
    return Moved(ids=tuple(ids), uid=lot.uid, old=None, new=state, count=len(ids), priority=lot.priority)
