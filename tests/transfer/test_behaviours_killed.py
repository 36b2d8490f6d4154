"""A worker that is killed in the middle of any behaviour is followed by one that comes to the same outcome."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from behaviour import Behaviour, Fails
from behaviour_run import Moment, run_killed
from behaviour_threads import Runs, Workers, run_at_once
from behaviours import BEHAVIOURS

_LARGE_BYTES = 1024 * 1024


def moments(behaviour: Behaviour) -> tuple[Moment, ...]:
    """Return when to kill: what is small or can't be resumed has no checkpoint, what fails is never complete."""
    first = behaviour.pages[-1].cases[0]
    if len(first.body) >= _LARGE_BYTES:
        return (Moment.CHECKPOINT if first.etag or first.last_modified else Moment.STARTED,)
    return (Moment.STARTED,) if isinstance(behaviour.outcome, Fails) else (Moment.READY,)


CASES = [(behaviour, moment) for behaviour in BEHAVIOURS for moment in moments(behaviour)]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """All cases, each begun as soon as there is room for it."""

    def work(workers: Workers, behaviour: Behaviour, moment: Moment) -> None:
        with workers.one() as successor:
            run_killed(behaviour, moment, tmp_path_factory.mktemp("killed"), successor)

    yield from run_at_once(request, work)


@pytest.mark.parametrize(
    ("behaviour", "moment"), CASES, ids=[f"{behaviour.name}, killed {moment}" for behaviour, moment in CASES]
)
def test_a_killed_worker_is_followed_by_one_that_comes_to_the_same_end(
    behaviour: Behaviour, moment: Moment, runs: Runs, request: pytest.FixtureRequest
) -> None:
    runs[request.node.name].result()
