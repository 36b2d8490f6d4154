"""No bytes that a client sends end the daemon, show a traceback, or keep it from answering the next client."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.daemon import Daemon

from autodl_lib.contract.errors import ERRORS
from autodl_lib.contract.requests.registry import REQUESTS

CODES = {error.code for error in ERRORS} - {"internal"}
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["http://127.0.0.1:1/x", "/tmp", "paused", "~", "\x00", "\ud800", 1, 0, -1, 2**53, 1e308])
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
names = sorted({name for request in REQUESTS for name in request.__dataclass_fields__})
parameters = st.dictionaries(st.sampled_from(names) | st.text(max_size=8), values, max_size=6)
nearly_valid = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0") | leaves, "id": st.integers(0, 9) | leaves},
    optional={
        "method": st.sampled_from([request.method for request in REQUESTS]) | leaves,
        "params": parameters | values,
        "x": values,
    },
)


def stands(daemon: Daemon, data: bytes) -> None:
    """Send bytes and no more, read all that comes, then ask as somebody else."""
    with daemon.connect() as wire:
        try:
            wire.send(data)
            wire.finish_sending()
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has closed the connection already
        while (answer := wire.read()) is not None:
            text = json.dumps(answer)
            assert "Traceback" not in text
            assert 'File \\"' not in text
            if "error" in answer:
                assert answer["error"]["data"]["code"] in CODES, (data, answer)
    with daemon.connect() as wire:
        assert wire.call("status", id=1)["id"] == 1
    assert daemon.defects() == [], (data, daemon.log_end())


@QUICK
@given(data=st.binary(max_size=3000))
def test_arbitrary_bytes(target: Daemon, data: bytes) -> None:
    stands(target, data)


@QUICK
@given(data=st.lists(st.binary(max_size=200), max_size=20).map(b"\n".join))
def test_arbitrary_lines(target: Daemon, data: bytes) -> None:
    stands(target, data)


@QUICK
@given(documents=st.lists(nearly_valid | values, min_size=1, max_size=8))
def test_requests_that_are_nearly_valid(target: Daemon, documents: list[object]) -> None:
    # watch would stream for ever otherwise; pausing and cancelling are fine.
    stands(target, b"".join(json.dumps(document).encode() + b"\n" for document in documents))


@QUICK
@given(data=st.data())
def test_valid_requests_with_flipped_bytes(target: Daemon, data: st.DataObject) -> None:
    line = bytearray(
        b'{"jsonrpc":"2.0","id":1,"method":"add","params":{"urls":["http://127.0.0.1:1/x"],"paused":true}}\n'
    )
    for _ in range(data.draw(st.integers(1, 4))):
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    stands(target, bytes(line))
