"""Drives workers through a behaviour as the supervisor would: again after each failure that may pass, at once.

Runs as: the tests.  Talks to: a worker, the misbehaving server, the destination folder.
Invariants: after each attempt, whatever it came to, the folder is looked at: no wrong byte, nothing unexplained.
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from behaviour import Behaviour, Either, Fails, Right
from support.misbehaving_server import MisbehavingServer
from worker_harness import WorkerHarness

from autodl_lib.contract.failures import RETRYABLE
from autodl_lib.contract.worker_messages import Assign, Failed, FileIdentity, Finished, Ready, Report, Started
from autodl_lib.worker.files.control_file import decode_slots

CONNECTIONS = 4
STALL_TIMEOUT_S = 4.0
_MORE_ATTEMPTS_AFTER_A_KILL = 3
_LONGEST_WAIT_FOR_A_MOMENT_S = 6.0
_LOOK_EVERY_S = 0.02


class Moment(StrEnum):
    """When a worker is killed; where that never comes, it is killed all the same, a little later."""

    STARTED = "when bytes flow"
    CHECKPOINT = "when there is a checkpoint"
    READY = "when the file is complete"


class BehaviourWorker(WorkerHarness):
    """A worker with short time-outs, that can be looked at between its reports."""

    def __init__(self) -> None:
        super().__init__(stall_timeout_s=STALL_TIMEOUT_S, connect_timeout_s=STALL_TIMEOUT_S, connections=CONNECTIONS)

    def pump(self, timeout_s: float) -> None:
        """Take in the reports of the next moment, if there are any."""
        readable, _, _ = select.select([self._reports], [], [], timeout_s)
        if readable:
            self._read(time.monotonic() + timeout_s)

    def end_of(self, lease: str) -> Finished | Failed | None:
        """Return the report that ended a lease, as far as it has."""
        return next((end for end in self.seen if end.lease == lease and isinstance(end, Finished | Failed)), None)

    def kill(self) -> None:
        """End it with signal 9."""
        self.process.kill()
        self.wait_gone()
        self.retire()


@dataclass(slots=True, kw_only=True)
class Errand:
    """One task on its way, as its supervisor knows it."""

    behaviour: Behaviour
    url: str
    folder: Path
    right: tuple[bytes, ...]
    outcome: Right | Fails | Either = field(default_factory=Right)
    more_attempts: int = 0
    attempts: int = 0
    name: str | None = None
    part: str | None = None
    identity: FileIdentity | None = None
    history: list[Report] = field(default_factory=list)

    def go_on(self, worker: BehaviourWorker) -> None:
        """Give the task to a worker, again and again, until it comes to its end, and check that."""
        while True:
            assign = self.assign(worker)
            worker.finish(assign)
            if self.is_over(worker, assign):
                return

    def assign(self, worker: WorkerHarness) -> Assign:
        """Give the task to a worker."""
        self.attempts += 1
        return worker.assign(
            self.url,
            self.folder,
            tag="tests-1",
            name=self.name,
            part=self.part,
            identity=self.identity,
            options=self.behaviour.options,
            connections=(CONNECTIONS,) * (1 + len(self.behaviour.options.mirrors)),
            is_again=self.attempts > 1,
        )

    def learn(self, worker: BehaviourWorker, assign: Assign) -> None:
        """Keep what the supervisor's database would, and look at the folder."""
        for report in worker.seen:
            if report.lease != assign.lease:
                continue
            self.history.append(report)
            match report:
                case Started():
                    self.name, self.part = report.name, report.part
                case Ready():
                    self.name, self.part, self.identity = report.name, report.part, report.identity
                case Failed():
                    self.part, self.identity = report.part, None
        self.check_folder()

    def is_over(self, worker: BehaviourWorker, assign: Assign) -> bool:
        """Take in how an attempt ended; False when the task is worth another one."""
        self.learn(worker, assign)
        report = worker.end_of(assign.lease)
        if isinstance(report, Finished):
            self.check_finished(report)
            return True
        assert isinstance(report, Failed)
        if report.code in RETRYABLE and self.attempts < self.most_attempts():
            return False
        self.check_failed(report)
        return True

    def most_attempts(self) -> int:
        """Return how many attempts the task has."""
        outcomes = (self.outcome.right, self.outcome.fails) if isinstance(self.outcome, Either) else (self.outcome,)
        return max(outcome.attempts for outcome in outcomes) + self.more_attempts

    # --- what must be true ---

    def check_folder(self) -> None:
        """What has a final name is right, and nothing was saved elsewhere."""
        assert [path.name for path in self.folder.parent.iterdir()] == [self.folder.name], self.history
        for path in self.folder.iterdir():
            if not path.name.startswith("."):
                content = path.read_bytes()
                assert content in self.right, f"{path.name}: {len(content)} wrong bytes; {self.history}"

    def check_finished(self, report: Finished) -> None:
        """The file is there, alone, and it was to be."""
        outcome = self.outcome.right if isinstance(self.outcome, Either) else self.outcome
        assert isinstance(outcome, Right), f"it should have failed: {self.history}"
        assert Path(report.dest).parent == self.folder
        assert sorted(path.name for path in self.folder.iterdir()) == [Path(report.dest).name], self.history
        assert Path(report.dest).stat().st_size == report.size_bytes
        assert outcome.name in (None, Path(report.dest).name)

    def check_failed(self, report: Failed) -> None:
        """There is no file, and no more of a part than was said; it was to fail, and for this reason."""
        outcome = self.outcome.fails if isinstance(self.outcome, Either) else self.outcome
        assert isinstance(outcome, Fails), f"it should have come to its end: {self.history}"
        assert report.code in outcome.codes, self.history
        said = set() if report.part is None else {report.part, report.part.replace(".autodl-part", ".autodl-ctl")}
        assert {path.name for path in self.folder.iterdir()} <= said, self.history
        if outcome.retry_after_s is not None:
            least_s, most_s = outcome.retry_after_s
            assert report.retry_after_s is not None
            assert least_s <= report.retry_after_s <= most_s


def run(behaviour: Behaviour, base: Path, worker: BehaviourWorker) -> None:
    """Let a worker meet a behaviour."""
    with MisbehavingServer() as server:
        for errand in _errands(behaviour, server, base):
            errand.go_on(worker)


def run_killed(behaviour: Behaviour, moment: Moment, base: Path, successor: BehaviourWorker) -> None:
    """Let a worker meet a behaviour, kill it in the middle, and let another one take over."""
    with MisbehavingServer() as server:
        errand, *others = _errands(behaviour, server, base)
        errand.outcome = behaviour.after_kill or behaviour.outcome
        errand.more_attempts = _MORE_ATTEMPTS_AFTER_A_KILL
        if moment is not Moment.READY:
            server.stop_after(len(errand.right[0] if errand.right else behaviour.pages[0].cases[0].body) // 2)
        over = _kill(errand, moment)
        server.go_on()
        if not over:
            errand.go_on(successor)
        for other in others:
            other.go_on(successor)


def _errands(behaviour: Behaviour, server: MisbehavingServer, base: Path) -> list[Errand]:
    """Serve the pages; return the task that the behaviour is about, and those that come after it."""
    urls = [server.serve_page(page) for page in (*behaviour.pages, *behaviour.then)]
    errands = [_errand(behaviour, urls[0], base / "0", behaviour.right())]
    errands[0].outcome = behaviour.outcome
    for number, page in enumerate(behaviour.then, 1):
        url = urls[len(behaviour.pages) + number - 1]
        errands.append(_errand(behaviour, url, base / str(number), (page.cases[0].body,)))
    return errands


def _errand(behaviour: Behaviour, url: str, base: Path, right: tuple[bytes, ...]) -> Errand:
    folder = base / "downloads"
    folder.mkdir(parents=True)
    return Errand(behaviour=behaviour, url=url, folder=folder, right=right)


def _kill(errand: Errand, moment: Moment) -> bool:
    """Give the task to a worker that is killed at a moment; True when the task was over before that."""
    worker = BehaviourWorker()
    worker.auto_publish = moment is not Moment.READY
    try:
        assign = errand.assign(worker)
        deadline = time.monotonic() + _LONGEST_WAIT_FOR_A_MOMENT_S
        while not _has_come(moment, worker, assign, errand) and time.monotonic() < deadline:
            worker.pump(_LOOK_EVERY_S)
            if worker.end_of(assign.lease) is not None:
                if errand.is_over(worker, assign):
                    return True
                assign = errand.assign(worker)
    finally:
        worker.kill()
    errand.learn(worker, assign)
    return False


def _has_come(moment: Moment, worker: BehaviourWorker, assign: Assign, errand: Errand) -> bool:
    match moment:
        case Moment.STARTED:
            return bool(worker.reports_of(assign.lease, Started))
        case Moment.READY:
            return bool(worker.reports_of(assign.lease, Ready))
        case Moment.CHECKPOINT:
            controls = [path for path in errand.folder.iterdir() if path.name.endswith(".autodl-ctl")]
            return any(decode_slots(path.read_bytes()) is not None for path in controls)
