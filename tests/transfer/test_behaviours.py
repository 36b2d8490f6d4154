"""Whatever a server does, a download ends in the right bytes or in a failure, and never in wrong bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from behaviour import Behaviour
from behaviour_run import BehaviourWorker, run
from behaviour_threads import run_at_once
from behaviours import BEHAVIOURS


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[None]]]:
    """All cases, each begun as soon as a worker is free; a worker has many, one after the other."""
    mine = threading.local()
    workers: list[BehaviourWorker] = []

    def work(behaviour: Behaviour) -> None:
        if getattr(mine, "worker", None) is None:
            mine.worker = BehaviourWorker()
            workers.append(mine.worker)
        worker, mine.worker = mine.worker, None
        run(behaviour, tmp_path_factory.mktemp("behaviour"), worker)
        mine.worker = worker

    yield from run_at_once(request, work)
    for worker in workers:
        worker.retire()


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.name)
def test_a_server_may_be_odd(
    behaviour: Behaviour, runs: dict[str, Future[None]], request: pytest.FixtureRequest
) -> None:
    runs[request.node.name].result()


def test_there_is_no_behaviour_twice() -> None:
    assert len({behaviour.name for behaviour in BEHAVIOURS}) == len(BEHAVIOURS) >= 70
