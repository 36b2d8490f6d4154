"""What some tasks need before their transfer begins: lists of checksums, and a look at another program's part.

Runs as: the task's owner.  Talks to: servers, for small answers; the file to continue from.
A part of another program (`--continue-from`) is believed when the server sends the same bytes for its end, can tell
versions apart, and does not say that its file is newer than the part.
Invariants: `done` is called exactly once, unless it was stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autodl_lib.contract.checksums import MAX_LIST_BYTES
from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.urls import public_url
from autodl_lib.contract.worker_messages import Assign, TransferSettings
from autodl_lib.worker.files.checking import ChecksumList, list_urls
from autodl_lib.worker.files.foreign_part import (
    OVERLAP_BYTES,
    ForeignPart,
    may_be_older_than,
    open_foreign_part,
    overlap,
)
from autodl_lib.worker.network.connection import Connections
from autodl_lib.worker.network.login_options import has_same_origin, of_mirror
from autodl_lib.worker.network.request_options import Request, encode_headers, encode_url
from autodl_lib.worker.network.response import Accept, RemoteVersion, ResumePoint, judge_unbound
from autodl_lib.worker.network.response_head import ResponseHead
from autodl_lib.worker.network.small_fetch import Fetched, SmallFetch
from autodl_lib.worker.network.verdicts import TaskFailed, Verdict, http_verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A part of another program that is to be believed, of which version it is, and the answer that showed it."""

    foreign: ForeignPart
    version: RemoteVersion
    head: ResponseHead


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What came of it; `note` says why the part to continue from is not used."""

    lists: tuple[ChecksumList, ...] = ()
    adopted: Adopted | None = None
    note: str | None = None


def needs_preparation(assign: Assign, *, adopt: bool) -> bool:
    """Tell whether there is anything to fetch; `adopt`: a part of another program is of use."""
    options = assign.options
    is_adopting = adopt and options.continue_from is not None
    return is_adopting or (bool(options.checksums) and bool(list_urls(options)))


class Preparation:
    """Fetches one small thing after the other."""

    def __init__(
        self, assign: Assign, settings: TransferSettings, *, adopt: bool, done: Callable[[Prepared | Verdict], None]
    ) -> None:
        self._assign = assign
        self._settings = settings
        self._done = done
        self._to_fetch = list_urls(assign.options)
        self._lists: list[ChecksumList] = []
        self._continue_from = assign.options.continue_from if adopt else None
        self._foreign: ForeignPart | None = None
        self._connections: Connections | None = None
        self._fetch: SmallFetch | None = None

    def start(self, connections: Connections) -> None:
        """Begin.

        Raises: TaskFailed.
        """
        self._connections = connections
        self._next()

    def stop(self) -> None:
        """Stop; nobody is told."""
        if self._fetch is not None:
            self._fetch.stop()
        self._close_foreign()

    def wake_mono(self) -> float:
        """Return when `check` has something to do."""
        return self._fetch.wake_mono() if self._fetch is not None else float("inf")

    def check(self, now: float) -> None:
        """Give up what has stalled."""
        if self._fetch is not None:
            self._fetch.check(now)

    def _next(self) -> None:
        if self._to_fetch:
            self._ask(self._to_fetch[0], (), MAX_LIST_BYTES, self._list_came)
        elif self._continue_from is not None:
            self._look_at(self._continue_from)
        else:
            self._finish()

    def _ask(
        self, url: str, lines: tuple[str, ...], most_bytes: int, done: Callable[[Fetched | Verdict], None]
    ) -> None:
        assert self._connections is not None
        options, headers = self._assign.options, self._assign.headers
        if not has_same_origin(url, self._assign.url):
            options, headers = of_mirror(options, headers)
        request = Request(
            url=encode_url(url),
            headers=encode_headers((*headers, *lines)),
            resume_from=0,
            limit_rate_bps=0,
            settings=self._settings,
            options=options,
        )
        self._fetch = SmallFetch(request, most_bytes, done)
        self._fetch.start(self._connections)

    def _list_came(self, result: Fetched | Verdict) -> None:
        url = self._to_fetch.pop(0)
        if isinstance(result, Fetched) and result.head.status not in (0, 200):
            result = http_verdict(result.head.status, result.head.reason, None)
        elif isinstance(result, Fetched) and not result.head.is_whole:
            result = Verdict(code=FailureCode.TRUNCATED, message="the server's answer broke off in its head")
        if isinstance(result, Verdict):
            words = f"the list of checksums {public_url(url)} could not be fetched: {result.message}"
            self._done(Verdict(code=result.code, message=words, http_status=result.http_status))
            return
        self._lists.append(ChecksumList(url=url, content=result.body.decode("utf-8", "replace")))
        self._go_on()

    def _go_on(self) -> None:
        try:
            self._next()
        except TaskFailed as failed:
            self._done(failed.verdict)

    # --- a part of another program ---

    def _look_at(self, path: str) -> None:
        self._continue_from = None
        foreign = self._foreign = open_foreign_part(path)
        if self._assign.url[:4].lower() != "http":
            self._refuse("only a part of an HTTP download can be compared")
        elif foreign.good_bytes == 0:
            self._refuse("nothing in it is known to be good")
        else:
            start = max(0, foreign.good_bytes - OVERLAP_BYTES)
            lines = (f"Range: bytes={start}-{foreign.good_bytes - 1}",)
            self._ask(self._assign.url, lines, OVERLAP_BYTES, self._overlap_came)

    def _overlap_came(self, result: Fetched | Verdict) -> None:
        foreign = self._foreign
        assert foreign is not None
        if isinstance(result, Verdict):
            self._refuse(result.message)
            return
        start, expected = overlap(foreign)
        asked = ResumePoint(offset=start, end=foreign.good_bytes, version=_NO_VERSION)
        accepted = judge_unbound(result.head, asked)
        reason = _objection(foreign, accepted, result.body == expected)
        if reason is not None or accepted is None:
            self._refuse(reason or "the server does not send that range")
            return
        self._foreign = None
        adopted = Adopted(foreign=foreign, version=accepted.version, head=result.head)
        self._done(Prepared(lists=tuple(self._lists), adopted=adopted))

    def _refuse(self, reason: str) -> None:
        path = self._foreign.path if self._foreign is not None else "the part"
        self._close_foreign()
        self._finish(f"{path} can't be continued: {reason}; starting from the beginning")

    def _finish(self, note: str | None = None) -> None:
        self._done(Prepared(lists=tuple(self._lists), note=note))

    def _close_foreign(self) -> None:
        if self._foreign is not None:
            self._foreign.close()
            self._foreign = None


_NO_VERSION = RemoteVersion(size=None, etag=None, last_modified=None)


def _objection(foreign: ForeignPart, accepted: Accept | None, is_equal: bool) -> str | None:
    """Return why a part is not to be believed, None when it is."""
    if accepted is None:
        return "the server does not send that range"
    size = accepted.version.size
    if size is None or size < foreign.good_bytes or foreign.aria2_total not in (None, size):
        return "the server's file has another size"
    if not accepted.version.has_validator():
        return "the server does not tell versions of the file apart"
    if not is_equal:
        return "the server has other bytes"
    if not may_be_older_than(accepted.version.last_modified, foreign):
        return "the server's file is newer"
    return None
