"""Makes dataclasses of what the daemon answers, for callers that use the fields.

Runs as: the caller.  Talks to: nobody; no I/O.
Invariants: fields that only a newer daemon knows are left out; anything else unexpected is
ProtocolMismatch, because then it is no daemon of ours that answers.
"""

from __future__ import annotations

import dataclasses
import typing
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from autodl_lib.contract.codec import decode_fields, field_names
from autodl_lib.contract.errors import InvalidParams, ProtocolMismatch
from autodl_lib.contract.task import Task

if TYPE_CHECKING:
    # Making their classes costs every command some milliseconds that few need.
    from autodl_lib.contract.replies.queue import Statistics
    from autodl_lib.contract.replies.records import LogEntry

T = TypeVar("T")


def decoded(cls: type[T], document: Any) -> T:
    """Decode a reply without lists of objects in it.

    Raises: ProtocolMismatch.
    """
    try:
        names = _names_of(typing.cast(Any, cls))
        if not names.issuperset(document.keys()):
            document = {name: document[name] for name in names if name in document}
        return decode_fields(cls, document)
    except (AttributeError, InvalidParams) as error:
        raise ProtocolMismatch(f"the daemon answered something that can't be read: {error}") from None


@cache
def _names_of(cls: Any) -> frozenset[str]:
    return frozenset(field_names(cls))


def task_from(document: Any) -> Task:
    """Decode a task.

    Raises: ProtocolMismatch.
    """
    return decoded(Task, document)


def log_from(document: dict[str, Any]) -> list[LogEntry]:
    """Decode the answer to `log`.

    Raises: ProtocolMismatch.
    """
    from autodl_lib.contract.replies.records import LogEntry

    return [decoded(LogEntry, entry) for entry in listed(document, "events")]


def statistics_from(document: dict[str, Any]) -> Statistics:
    """Decode the answer to `stats`.

    Raises: ProtocolMismatch.
    """
    from autodl_lib.contract.replies.queue import Statistics

    tasks, responses = document.get("tasks"), document.get("responses")
    if not (_counts(tasks) and _counts(responses)):
        raise ProtocolMismatch("the daemon answered `stats` with something else")
    try:
        known = {field.name: document[field.name] for field in dataclasses.fields(Statistics)}
    except KeyError as error:
        raise ProtocolMismatch(f"the daemon's answer to `stats` lacks {error}") from None
    return Statistics(**known)


def listed(document: dict[str, Any], key: str) -> list[Any]:
    """Return the list that a reply carries under `key`.

    Raises: ProtocolMismatch.
    """
    found = document.get(key)
    if not isinstance(found, list):
        raise ProtocolMismatch(f"the daemon's answer lacks {key!r}")
    return found


def _counts(value: object) -> bool:
    return isinstance(value, dict) and all(type(count) is int for count in value.values())
