"""Which path is what: POST /rpc for everything, and a few questions that are pleasant with curl.

Runs as: an unprivileged account.  Talks to: nobody; no I/O.
Invariants: a GET changes nothing: each of its paths stands for a declared request that `changes` nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from autodl_lib.contract.requests.following import Watch
from autodl_lib.contract.requests.one_task import Explain, Log, Status
from autodl_lib.contract.requests.overviews import History, List, Stats
from autodl_lib.contract.requests.registry import Request
from autodl_lib.http_shim.messages import Head
from autodl_lib.http_shim.refusals import bad_http, no_such_path, not_json, unknown_method, wrong_method

RPC_PATH = "/rpc"
EVENTS_PATH = "/events"

READS: tuple[tuple[str, type[Request]], ...] = (
    ("/tasks", List),
    ("/tasks/ID", Status),
    ("/tasks/ID/log", Log),
    ("/tasks/ID/explain", Explain),
    ("/history", History),
    ("/stats", Stats),
    (EVENTS_PATH, Watch),
)
"""Paths of GET, and the request that each one is."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"})
_READ_METHODS = ("GET", "HEAD")
_JSON = re.compile(r"application/json(?:\s*;\s*charset=\"?utf-8\"?)?", re.ASCII | re.IGNORECASE)
_PATTERNS = tuple((re.compile(path.replace("ID", "(?P<id>[0-9]{1,16})"), re.ASCII), kind) for path, kind in READS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpc:
    """A JSON-RPC request is in the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A question, and what the path says of it."""

    request_type: type[Request]
    given: dict[str, Any]
    query: str
    is_head: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Asks which methods a path takes."""

    allowed: str


Action = Rpc | Read | Capabilities


def action_of(head: Head) -> Action:
    """Return what a request asks for.

    Raises: Refusal.
    """
    if head.method not in _METHODS:
        raise unknown_method()
    if head.method != "OPTIONS" and not head.target.startswith("/"):
        raise bad_http(HTTPStatus.BAD_REQUEST, "the target of a request is a path")
    if head.path == RPC_PATH:
        return _rpc(head)
    for pattern, request_type in _PATTERNS:
        match = pattern.fullmatch(head.path)
        if match is not None:
            given = {name: int(text) for name, text in match.groupdict().items()}
            return _read(head, request_type, given)
    if head.method == "OPTIONS" and head.target == "*":
        return Capabilities(allowed="GET, HEAD, POST, OPTIONS")
    raise no_such_path()


def _rpc(head: Head) -> Rpc | Capabilities:
    allowed = "POST, OPTIONS"
    if head.method == "OPTIONS":
        return Capabilities(allowed=allowed)
    if head.method != "POST":
        raise wrong_method(allowed)
    if not _JSON.fullmatch((head.one("content-type") or "").strip()):
        raise not_json()
    if (head.one("content-encoding") or "identity").strip().lower() != "identity":
        raise not_json()
    return Rpc()


def _read(head: Head, request_type: type[Request], given: dict[str, Any]) -> Read | Capabilities:
    allowed = "GET, HEAD, OPTIONS"
    if head.method == "OPTIONS":
        return Capabilities(allowed=allowed)
    if head.method not in _READ_METHODS:
        raise wrong_method(allowed)
    return Read(request_type=request_type, given=given, query=head.query, is_head=head.method == "HEAD")
