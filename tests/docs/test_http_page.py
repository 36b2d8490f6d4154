"""docs/HTTP.md says what the HTTP front does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from autodl_lib.contract.codec import MAX_LINE_BYTES
from autodl_lib.contract.http_options import DEFAULT_LISTEN
from autodl_lib.http_shim import refusals
from autodl_lib.http_shim.client_stream import Patience
from autodl_lib.http_shim.daemon_link import MAX_STREAMS
from autodl_lib.http_shim.routes import EVENTS_PATH, READS, RPC_PATH
from autodl_lib.http_shim.server import MAX_CONNECTIONS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "HTTP.md").read_text("utf-8")
ARGUMENTS = {"allowed": "GET", "limit_bytes": 1, "status": 400, "message": "x"}
MADE = [
    make(**{name: ARGUMENTS[name] for name in inspect.signature(make).parameters})
    for _, make in inspect.getmembers(refusals, inspect.isfunction)
]


@pytest.mark.parametrize(("path", "request_type"), READS, ids=[path for path, _ in READS])
def test_every_question_is_in_it_with_its_method(path: str, request_type: type) -> None:
    assert re.search(rf"^\| `GET {path}` \| `{request_type.method}`", PAGE, re.MULTILINE)


def test_it_names_no_path_that_is_not_there() -> None:
    named = set(re.findall(r"^\| `(?:GET|POST) ([^`]+)`", PAGE, re.MULTILINE))
    assert named == {RPC_PATH, *(path for path, _ in READS)}
    assert EVENTS_PATH in named


@pytest.mark.parametrize("refusal", MADE, ids=lambda refusal: refusal.code)
def test_every_refusal_is_in_it_with_its_status(refusal: refusals.Refusal) -> None:
    assert f"| {refusal.status.value} | `{refusal.code}` |" in PAGE


def test_its_numbers_are_those_of_the_program() -> None:
    patience = Patience()
    for words in (
        DEFAULT_LISTEN,
        f"a body over {MAX_LINE_BYTES // 1024**2} MiB",
        f"over {MAX_STREAMS} streams",
        f"There are {MAX_CONNECTIONS} places",
        f"the head took over {patience.head_s:g} s, or the body over {patience.body_s:g} s",
        f"after {patience.idle_s:g} s without",
        f"({patience.piece_s:g} s for 64 KiB)",
    ):
        assert words in " ".join(PAGE.split()), words
