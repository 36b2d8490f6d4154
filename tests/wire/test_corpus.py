"""Lines that must be answered, and lines that must be refused, each in a file of its own.

A file has `line` (text), or `base64`, or `base64_zlib` of its bytes; `valid/` files may have the exact
`result`, `invalid/` files have the `code` of the error.
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon

from autodl_lib.contract.errors import ERRORS
from autodl_lib.contract.requests.registry import REQUESTS

HERE = Path(__file__).parent
VALID = sorted((HERE / "valid").glob("*.json"))
INVALID = sorted((HERE / "invalid").glob("*.json"))


def load(path: Path) -> tuple[bytes, dict[str, Any]]:
    document = json.loads(path.read_text())
    if "base64" in document:
        return base64.b64decode(document["base64"]), document
    if "base64_zlib" in document:
        return zlib.decompress(base64.b64decode(document["base64_zlib"])), document
    return document["line"].encode(), document


def id_of(line: bytes) -> Any:
    """Return the id that an answer must carry: the line's, where it has a proper one that can be read."""
    try:
        document = json.loads(line, object_pairs_hook=dict)
    except (ValueError, RecursionError):
        return None
    found = document.get("id") if isinstance(document, dict) else None
    return found if isinstance(found, (str, int)) and not isinstance(found, bool) else None


def is_question(line: bytes) -> bool:
    """Tell whether a request leaves everything as it is."""
    document = json.loads(line)
    [request] = [request for request in REQUESTS if request.method == document["method"]]
    return not request.changes or (request.method in ("max_tasks", "limit") and not document.get("params"))


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_line_is_answered(request: pytest.FixtureRequest, path: Path) -> None:
    line, document = load(path)
    # What changes nothing is asked of the daemon of all; what does, of one of its own.
    daemon: Daemon = request.getfixturevalue("target" if is_question(line) else "fresh")
    with daemon.connect() as wire:
        wire.send(line + b"\n")
        answer = wire.reply()
        assert answer["jsonrpc"] == "2.0"
        assert answer["id"] == id_of(line)
        assert "error" not in answer, answer
        if "result" in document:
            assert answer["result"] == document["result"]
        assert wire.call("status", id=1)["id"] == 1


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_line_is_refused_with_its_code_and_the_connection_goes_on(target: Daemon, path: Path) -> None:
    line, document = load(path)
    before = len(target.tasks())
    with target.connect() as wire:
        wire.send(line + b"\n")
        answer = wire.reply()
        assert "result" not in answer, answer
        assert answer["error"]["data"]["code"] == document["code"], answer
        [kind] = [kind for kind in ERRORS if kind.code == document["code"] and kind.__name__ != "InternalError"]
        assert answer["error"]["code"] == kind.rpc_code
        assert answer["id"] in (None, id_of(line))
        assert 0 < len(answer["error"]["message"]) < 1000
        assert wire.call("max_tasks")["max_tasks_num"] == 10
    assert len(target.tasks()) == before


def test_every_code_that_a_request_can_be_refused_with_is_in_the_corpus() -> None:
    codes = {load(path)[1]["code"] for path in INVALID}
    assert codes >= {"parse_error", "invalid_request", "unknown_method", "invalid_params", "bad_url", "no_such_task"}


def test_every_method_is_in_the_corpus() -> None:
    methods = {document["method"] for path in VALID if isinstance(document := json.loads(load(path)[0]), dict)}
    # A task that can be resumed or retried by its number comes with the integration tests.
    assert methods | {"retry"} == {request.method for request in REQUESTS}
