"""Whatever a server does, a download ends in the right bytes or in a failure, and never in wrong bytes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from behaviour import Behaviour
from behaviour_run import run
from behaviour_threads import Runs, Workers, run_at_once
from behaviours import BEHAVIOURS


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """All cases, each begun as soon as there is room for it."""

    def work(workers: Workers, behaviour: Behaviour) -> None:
        with workers.one() as worker:
            run(behaviour, tmp_path_factory.mktemp("behaviour"), worker)

    yield from run_at_once(request, work)


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.name)
def test_a_server_may_be_odd(behaviour: Behaviour, runs: Runs, request: pytest.FixtureRequest) -> None:
    runs[request.node.name].result()


def test_there_is_no_behaviour_twice() -> None:
    assert len({behaviour.name for behaviour in BEHAVIOURS}) == len(BEHAVIOURS) >= 70
