"""Errors: codes that are stable and distinct, and the exit statuses that design.md fixes."""

from __future__ import annotations

import pytest

from autodl_lib.contract import errors
from autodl_lib.contract.errors import ERRORS, AutodlError, InternalError, error_from_code
from autodl_lib.contract.requests.registry import REQUESTS
from autodl_lib.supervisor.handlers.table import HANDLERS

STATUSES = {
    "invalid_params": 2, "bad_url": 2, "bad_settings": 2, "no_daemon": 3, "no_such_task": 4,
    "not_allowed": 5, "timed_out": 6, "wrong_state": 1, "store_unusable": 1, "already_running": 1,
}  # fmt: skip


def test_every_error_is_listed_once_with_a_code_of_its_own() -> None:
    declared = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, AutodlError) and kind is not AutodlError
    }
    assert set(ERRORS) == declared
    assert len({error.code for error in ERRORS}) == len(ERRORS)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.code)
def test_an_error_survives_the_wire(kind: type[AutodlError]) -> None:
    again = error_from_code(kind.code, "why")
    assert (type(again), str(again)) == (kind, "why")
    assert kind.__doc__
    assert kind.exit_status in range(1, 7)


def test_a_code_of_a_newer_daemon_is_an_internal_error_with_its_message() -> None:
    again = error_from_code("from_the_future", "why")
    assert (type(again), str(again)) == (InternalError, "why")


def test_exit_statuses_are_those_of_the_design() -> None:
    by_code = {error.code: error.exit_status for error in ERRORS}
    assert {code: by_code[code] for code in STATUSES} == STATUSES


def test_every_request_has_a_handler_and_every_handler_a_request() -> None:
    assert HANDLERS.keys() == set(REQUESTS)
    for request, handler in HANDLERS.items():
        assert handler.__name__.removesuffix("_tasks") == request.method.removesuffix("_tasks")
