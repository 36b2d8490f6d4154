"""The clock jumps, by hours and by years, in both directions: nothing waits for a time that was never meant."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.daemon import Task
from support.faulty import FaultyDaemon, check_files
from support.nginx import Nginx

MakeFaulty = Callable[..., FaultyDaemon]

NOBODY = "http://127.0.0.1:1"


def attempts_of(daemon: FaultyDaemon, url: str, at_least: int) -> tuple[int, int]:
    """Queue what nobody serves; return its number, and how often it was tried, once that is often."""
    [task_id] = daemon.queue([url])

    def was_tried(task: Task) -> bool:
        return task["state"] == "retrying" and task["attempts"] >= at_least

    return task_id, daemon.wait_for(task_id, was_tried, "it was tried")["attempts"]


@pytest.mark.parametrize("ahead_s", [3600.0, 20 * 86400.0], ids=["an hour", "twenty days"])
def test_a_retry_does_not_wait_for_a_clock_that_was_set_back_to_come_there_again(
    make_faulty: MakeFaulty, ahead_s: float
) -> None:
    daemon = make_faulty()
    daemon.faults.set_clock(ahead_s)
    daemon.revive()
    waiting, attempts = attempts_of(daemon, f"{NOBODY}/waits", 2)
    daemon.faults.set_clock(0)
    attempts_of(daemon, f"{NOBODY}/later", 2)
    daemon.wait_for(waiting, lambda task: task["attempts"] > attempts + 2, "it is tried again, and again")


def test_a_clock_that_jumps_while_files_come_spoils_none(make_faulty: MakeFaulty, nginx: Nginx) -> None:
    daemon = make_faulty()
    daemon.revive()
    files = [nginx.file(f"clock/{number}.bin", 150_000, rate="150k") for number in range(3)]
    served = dict(zip(daemon.queue([one.slow_url for one in files]), files, strict=True))
    for jump_s in (7200.0, -7200.0, 10 * 365 * 86400.0, -20 * 365 * 86400.0, 0.0):
        daemon.faults.set_clock(jump_s)
        one = nginx.file(f"clock/jump-{jump_s:g}.bin", 100)
        [task_id] = daemon.queue([one.url])
        daemon.settle([task_id])
        served[task_id] = one
    check_files(daemon, daemon.settle(served), served)
