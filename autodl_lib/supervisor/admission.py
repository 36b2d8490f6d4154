"""From text that workers wrote to reports that may be believed.

Runs as: the supervisor.  Talks to: nobody; no I/O.
Security: everything here is hostile input. A text is decoded strictly, must name a live worker, and each
of its reports must carry a lease of that very worker and fit the tables of contract/worker_messages.py.
How it fails: a text that is nobody's is dropped; a worker whose text breaks a rule is distrusted, and
what came before the breach in the same text is still taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from autodl_lib.contract.codec import decode_message, loads
from autodl_lib.contract.errors import AutodlError
from autodl_lib.contract.worker_messages import REPORTS, Report, WorkerState
from autodl_lib.supervisor.worker_handle import Lease, ReportRefused, Worker

_REPORT_KINDS: dict[str, type[Report]] = {report.type: report for report in REPORTS}
_ENDS_WORK = frozenset({"ready", "failed", "halted", "finished", "current"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A report that passed all checks."""

    worker: Worker
    lease: Lease
    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What came of a drain: reports to believe, in order; workers not to trust any more, with why; and texts
    whose worker is not known (yet), by the key that they name."""

    reports: list[Admitted]
    distrusted: list[tuple[Worker, str]]
    unknown: list[tuple[str, str]]


def admit(workers: Mapping[str, Worker], texts: list[str]) -> Admission:
    """Decode and check what was drained."""
    admitted: list[Admitted] = []
    distrusted: dict[str, tuple[Worker, str]] = {}
    unknown: list[tuple[str, str]] = []
    for text in texts:
        try:
            document = loads(text)
        except AutodlError:
            continue
        if not isinstance(document, dict) or not isinstance(document.get("reports"), list):
            continue
        key = str(document.get("worker"))
        worker = workers.get(key)
        if worker is None:
            unknown.append((key, text))
            continue
        if key in distrusted:
            continue
        try:
            admitted.extend(_admit_each(worker, document["reports"]))
        except (AutodlError, ReportRefused) as error:
            distrusted[worker.key] = (worker, str(error))
    return Admission(reports=admitted, distrusted=list(distrusted.values()), unknown=unknown)


def _admit_each(worker: Worker, documents: list[object]) -> Iterator[Admitted]:
    for document in documents:
        report = decode_message(_REPORT_KINDS, document)
        lease = worker.admit(report)
        if lease is None:
            worker.move(WorkerState.BOUND)
            worker.move(WorkerState.BUSY if worker.leases else WorkerState.IDLE)
            continue
        if report.type in _ENDS_WORK:
            worker.set_pace(lease)
        yield Admitted(worker=worker, lease=lease, report=report)
