"""The benchmarks run to their end: small ones, for what they print here says nothing of speed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.accounts import User
from support.daemon import REPO, MakeDaemon

BENCH = REPO / "tests" / "bench"


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        pytest.param("bench.py large small --mib 2 --files 10 --rounds 1 --only autodl", "== targets ==", id="bench"),
        pytest.param("latency.py 0.5", "99", id="latency"),
        pytest.param("soak.py 2 --every 1 --no-kill", "defects in the log:\nnone", id="soak"),
    ],
)
def test_a_benchmark_runs_to_its_end(command: str, printed: str) -> None:
    script, *arguments = command.split()
    done = subprocess.run([sys.executable, BENCH / script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert printed in done.stdout


def test_the_choice_of_the_next_tasks_can_be_measured(make_daemon: MakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a queue on disk, with the daemon's own runner and a pool that gives nobody anything."""
    monkeypatch.syspath_prepend(str(BENCH))
    from scale_planning import planning_us

    daemon = make_daemon().start()
    with daemon.connect() as wire:
        wire.call("pause", all=True)
        wire.call("add", urls=[f"http://127.0.0.1:1/{number}" for number in range(30)])
    found = planning_us(daemon, [User("root", 0, 0, daemon.home, frozenset())])
    assert len(found) == 4
    assert all(microseconds > 0 for microseconds in found.values())
