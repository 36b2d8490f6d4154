"""kill -9 at every named crash point: what was acknowledged is there, what is finished is right, nothing is left over.

AUTODL_FAULT_SEED sets the order in which the points are armed; the seed of a run is printed with its failure.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.crash_points import ALL, CrashPoint
from support.faulty import FaultyDaemon, check_files
from support.nginx import Nginx, Served
from support.processes import kill, marked
from support.waiting import wait_until

SEED = int(os.environ.get("AUTODL_FAULT_SEED") or random.randrange(10**9))
ARMED_AT_ONCE = 16
ARMED_AGAIN = 2
"""Points that were hit are armed again beside others: a crash on top of a crash."""

MOST_ROUNDS = 40

MakeFaulty = Callable[..., FaultyDaemon]


class Round:
    """One day of a daemon: files of all kinds, a pause, a cancel, a stop; every step survives the daemon's death."""

    def __init__(self, daemon: FaultyDaemon, nginx: Nginx, number: int) -> None:
        self._daemon = daemon
        self._nginx = nginx
        self._number = number
        self.served: dict[int, Served] = {}
        unwanted = self._name("unwanted")
        self.allowed = (f".{unwanted}.autodl-part", f".{unwanted}.autodl-ctl", unwanted)
        """What a crash may leave of a task that is cancelled before the queue knows the name of its part file."""

    def run(self) -> None:
        """Live it."""
        daemon = self._daemon
        (daemon.files / self._name("replaced")).write_bytes(b"what is to be replaced")
        (daemon.files / f".{self._name('orphan')}.autodl-part").write_bytes(b"of nobody")
        self._queue([self._file("replaced", 2000)], on_conflict="overwrite")
        small = [self._file(f"small-{number}", 3000) for number in range(4)]
        self._queue([*small, self._file("orphan", 300_000), self._file("empty", 0)])
        [slow] = self._queue([self._file("slow", 400_000)], slow=True)
        [unwanted] = self._queue([self._file("unwanted", 900_000)], slow=True)
        del self.served[unwanted]
        daemon.wait_for(slow, lambda task: task["state"] == "finished" or task["bytes_done"] > 0, "bytes come")
        self._kill_somebody()
        daemon.steer("pause", slow)
        if self._number % 3 != 2:
            daemon.steer("pause", unwanted)
        daemon.steer("cancel", unwanted)
        daemon.steer("resume", slow)
        self._stop()
        tasks = daemon.settle([*self.served, unwanted])
        assert tasks.pop(unwanted)["state"] in ("cancelled", "finished")

    def _kill_somebody(self) -> None:
        """Some points are on the ways that are taken after another crash only."""
        match self._number % 3:
            case 0:
                kill(*self._daemon.family().workers[:1])
            case 1:
                self._daemon.kill()

    def _stop(self) -> None:
        """Stop the daemon as a machine that is shut down, unless it is dead anyhow, and start it again."""
        daemon = self._daemon
        daemon.revive()
        assert daemon.process is not None
        if daemon.process.poll() is None:
            assert daemon.stop() in (0, -9)
        daemon.revive()

    def _queue(self, files: list[Served], *, slow: bool = False, **params: Any) -> list[int]:
        ids = self._daemon.queue([one.slow_url if slow else one.url for one in files], **params)
        self.served.update(zip(ids, files, strict=True))
        return ids

    def _file(self, kind: str, size_bytes: int) -> Served:
        return self._nginx.file(f"points/{self._name(kind)}", size_bytes, rate="400k")

    def _name(self, kind: str) -> str:
        return f"{self._number}-{kind}.bin"


@pytest.mark.timeout(900)
def test_a_crash_at_every_point_loses_nothing_and_leaves_nothing(make_faulty: MakeFaulty, nginx: Nginx) -> None:
    print(f"AUTODL_FAULT_SEED={SEED}")
    dice = random.Random(SEED)
    left = list(ALL)
    dice.shuffle(left)
    daemon = make_faulty([point.point for point in ALL])
    served: dict[int, Served] = {}
    allowed: list[str] = []
    armed: list[CrashPoint] = []
    hit: list[CrashPoint] = []
    for number in range(MOST_ROUNDS):
        while left and len(armed) < ARMED_AT_ONCE:
            armed.append(left.pop())
        again = dice.sample(hit, min(len(hit), ARMED_AGAIN))
        for point in {*armed, *again}:
            daemon.faults.arm(point)
        print(f"round {number}: {', '.join(map(str, armed))}; again {', '.join(map(str, again))}")
        day = Round(daemon, nginx, number)
        day.run()
        served |= day.served
        allowed += day.allowed
        hit += [point for point in armed if daemon.faults.was_hit(point)]
        armed = [point for point in armed if point not in hit]
        daemon.faults.disarm()
        if not left and not armed:
            break
    assert armed == [], f"never reached: {', '.join(map(str, armed))}"
    daemon.revive()
    check_files(daemon, daemon.settle(served), served, allowed)
    print(f"{len(hit)} points, {number + 1} rounds, {daemon.deaths} deaths of the daemon")
    assert daemon.stop() == 0
    wait_until(lambda: marked(daemon.mark) == [], "no process is left", seen=lambda: marked(daemon.mark))


def test_every_point_has_a_reason_and_is_named_once() -> None:
    assert len({(point.point, point.moment) for point in ALL}) == len(ALL)
    assert all(len(point.reason) > 15 and point.moment in ("before", "after") for point in ALL)
    for point in ALL:
        module, _, name = point.point.partition(":")
        path = Path(__file__).parents[2] / (module.replace(".", "/") + ".py")
        assert f"def {name.rpartition('.')[2]}(" in path.read_text(), point
