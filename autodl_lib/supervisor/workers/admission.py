"""From text that workers wrote to reports that may be believed.

Runs as: the supervisor.  Talks to: nobody; no I/O.
Security: everything here is hostile input. A text begins with the key of a live worker, which only that worker knows,
so whatever is wrong with the rest of it is that worker's doing. Each report must carry a lease of that very worker and
fit the tables of contract/worker_states.py.
How it fails: a text that is nobody's is dropped unread; a worker whose text breaks a rule is distrusted: what came
before the breach in the same text is still taken, and nothing after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from autodl_lib.contract.codec import decode_message, loads, prepare
from autodl_lib.contract.errors import AutodlError
from autodl_lib.contract.worker_messages import REPORTS, Bound, Finished, Ready, Report, Returned, Started
from autodl_lib.contract.worker_states import WorkerState
from autodl_lib.supervisor.workers.worker_handle import Lease, ReportRefused, Worker

_REPORT_KINDS: dict[str, type[Report]] = {report.type: report for report in REPORTS}
_KEY = re.compile(r'\{"worker":"([0-9a-f]{16})",')
_MEMBERS = {"worker", "reports"}
_SHA256 = re.compile("[0-9a-f]{64}")
_ENDS_WORK = frozenset({"ready", "failed", "halted", "finished", "current"})

for _of_many in (Ready, Finished):
    prepare(_of_many)


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
    distrusted: list[tuple[Worker, str]] = []
    unknown: list[tuple[str, str]] = []
    for text in texts:
        named = _KEY.match(text)
        if named is None:
            continue
        key = named[1]
        worker = workers.get(key)
        if worker is None:
            unknown.append((key, text))
            continue
        if worker.is_distrusted:
            continue
        first = len(admitted)
        try:
            admitted.extend(_admit_each(worker, _reports_in(text, key)))
        except (AutodlError, ReportRefused) as error:
            worker.is_distrusted = True
            distrusted.append((worker, str(error)))
        said = admitted[first:]
        ended = [item.lease for item in said if item.report.type in _ENDS_WORK]
        if ended and not any(isinstance(item.report, Returned) for item in said):  # which says more of its pace
            worker.set_pace(ended)
    return Admission(reports=admitted, distrusted=distrusted, unknown=unknown)


def _reports_in(text: str, key: str) -> list[object]:
    document = loads(text)
    if not isinstance(document, dict) or document.keys() != _MEMBERS or document["worker"] != key:
        raise ReportRefused("a text that is no list of reports")
    if not isinstance(document["reports"], list):
        raise ReportRefused("a text that is no list of reports")
    reports: list[object] = document["reports"]
    return reports


def _admit_each(worker: Worker, documents: list[object]) -> Iterator[Admitted]:
    for document in documents:
        report = decode_message(_REPORT_KINDS, document)
        if isinstance(report, Finished):
            if report.sha256 is not None and not _SHA256.fullmatch(report.sha256):
                raise ReportRefused("a SHA-256 that is none")
        elif isinstance(report, (Ready, Started)) and not (_is_plain(report.name) and _is_plain(report.part)):
            raise ReportRefused("a file name that is none")
        lease = worker.admit(report)
        if isinstance(report, Bound):
            worker.move(WorkerState.BOUND)
            worker.move(WorkerState.BUSY if worker.leases else WorkerState.IDLE)
        if lease is None:
            continue
        yield Admitted(worker=worker, lease=lease, report=report)


def _is_plain(name: str | None) -> bool:
    """Tell whether a name, if there is one, is that of a file in the folder of its task."""
    return name is None or not (name in ("", ".", "..") or "/" in name or "\0" in name)
