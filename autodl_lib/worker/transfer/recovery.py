"""What follows when a connection failed, or its response does not fit the file: it decides, the transfer acts.

Runs as: the task's owner.  Talks to: nobody; no I/O. What it learns of a source, it keeps there.
Others go on with what is missing; else another source does; else the transfer starts over, once, with one plain
connection; else it has failed.
Invariants: a transfer starts over at most once; the source that named the file's version is given up only with the
transfer, or where a mirror is left.
"""

from __future__ import annotations

from dataclasses import dataclass

from autodl_lib.contract.failures import FailureCode
from autodl_lib.worker.network.response import AskAgain, Refuse
from autodl_lib.worker.network.verdicts import CurlResult, Verdict, with_status
from autodl_lib.worker.transfer.job import Job
from autodl_lib.worker.transfer.judging import failure_of
from autodl_lib.worker.transfer.segment import Segment
from autodl_lib.worker.transfer.sources import Source, Sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a transfer looks like after the end of a request.

    `is_begun`: a response was accepted; `has_size`: it told the file's size; `is_resuming`: an earlier attempt's part
    is there; `others_work`: there are more connections; `has_spread`: there were; `status`: the last response code.
    """

    now: float
    status: int | None
    is_begun: bool
    has_size: bool
    is_resuming: bool
    others_work: bool
    has_spread: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GoOn:
    """Ask for what is missing; `is_lost`: the others may take over what this connection could not bring."""

    note: str | None = None
    is_lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginAgain:
    """Send a first request again; `is_anew`: for the whole file, whatever is there."""

    note: str
    is_anew: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """Ask for nothing until then."""

    until_mono: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """The transfer has failed, by this source."""

    verdict: Verdict
    source: Source


Move = GoOn | BeginAgain | Rest | GiveUp


class Recovery:
    """Decides for one transfer."""

    def __init__(self, job: Job, sources: Sources) -> None:
        self.has_started_over = False
        self._job = job
        self._sources = sources

    def after_end(self, segment: Segment, result: CurlResult, situation: Situation) -> Move:
        """Answer the end of a request that did not bring what was wanted of it."""
        match segment.judgement:
            case AskAgain() as again:
                return self._after_misfit(segment.source, again, situation)
            case Refuse(verdict=verdict):
                return self._after_failure(segment, with_status(verdict, situation.status), situation)
            case _:
                verdict = with_status(failure_of(self._job, segment, result), situation.status)
                return self._after_failure(segment, verdict, situation)

    def _after_misfit(self, source: Source, again: AskAgain, situation: Situation) -> Move:
        """Answer a response that does not fit what is here."""
        if not situation.is_begun:
            return self._start_over(again.note)
        source.sends_ranges = False
        is_main = source is self._sources.main
        note = None
        if not is_main:
            words = "another file" if again.is_changed else "no ranges that fit"
            note = _drop(source, f"the mirror {source.host} has {words} and is not used")
        if situation.others_work:
            # Their responses are of the version that is here. If they can't bring all of it, what is missing in the
            # end is asked for once more.
            return GoOn(note=note, is_lost=True)
        return self._start_over(again.note) if is_main else GoOn(note=note)

    def _after_failure(self, segment: Segment, verdict: Verdict, situation: Situation) -> Move:
        """Answer a connection that failed: others take over, another source does, or the transfer is over."""
        source = segment.source
        is_out = source.failed(situation.now)
        if not situation.is_begun:
            return self._after_first_failure(source, verdict, situation)
        if situation.others_work:
            note = None
            if is_out and source is not self._sources.main:
                note = _drop(source, f"the mirror {source.host} fails and is not used: {verdict.message}")
            return GoOn(note=note, is_lost=True)
        has_refused_a_part = isinstance(segment.judgement, Refuse) and verdict.retry_after_s is None
        if has_refused_a_part and situation.has_spread and not is_out:
            return Rest(until_mono=source.rests_until_mono())
        source.failure = verdict
        if self._sources.opening() is not None and not situation.has_size:
            # What is missing can't be asked for where nobody knows how much that is.
            words = f"{source.host} failed ({verdict.message}); starting over with a mirror"
            return BeginAgain(note=words, is_anew=True)
        if self._sources.opening() is not None:
            return GoOn(note=f"{source.host} failed ({verdict.message}); going on with a mirror")
        if has_refused_a_part and not self.has_started_over:
            return self._start_over(f"{verdict.message} for a part of the file; starting over with one connection")
        return GiveUp(verdict=verdict, source=source)

    def _after_first_failure(self, source: Source, verdict: Verdict, situation: Situation) -> Move:
        source.failure = verdict
        if self._sources.opening() is not None:
            return BeginAgain(note=f"{source.host} failed ({verdict.message}); trying a mirror", is_anew=False)
        if situation.is_resuming and not verdict.may_pass():
            source.failure = None  # the refusal may be meant for the range alone
            return self._start_over(f"{verdict.message} for a part of the file; starting over")
        best = self._sources.verdict() or verdict
        return GiveUp(verdict=best, source=next((each for each in self._sources.all if each.failure is best), source))

    def _start_over(self, note: str) -> BeginAgain | GiveUp:
        main = self._sources.main
        if self.has_started_over:
            words = "the remote file keeps changing, or the server's answers to a resume make no sense"
            return GiveUp(verdict=Verdict(code=FailureCode.REMOTE_CHANGED, message=words), source=main)
        self.has_started_over = True
        for source in self._sources.all:
            source.version = None
            source.sends_ranges = False
        main.failure = None
        return BeginAgain(note=note, is_anew=True)


def _drop(source: Source, words: str) -> str | None:
    """Give a mirror up; returns what to say of it, None where that was said before."""
    if source.failure is not None:
        return None
    source.failure = Verdict(code=FailureCode.REMOTE_CHANGED, message=words)
    return words
