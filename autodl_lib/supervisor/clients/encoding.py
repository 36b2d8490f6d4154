"""Long answers as JSON, made in pieces, so that nobody waits for one to be made.

Runs as: the supervisor, on the loop.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from autodl_lib.contract.codec import dumps, to_json
from autodl_lib.contract.request_lines import RpcId
from autodl_lib.supervisor.clients.fair_turns import Pace

PIECE = 200
"""Items that are encoded in one go, some milliseconds."""


async def encode_reply(rpc_id: RpcId, result: Any, pace: Pace) -> bytes:
    """Encode a reply, a line of JSON."""
    long = [item.name for item in dataclasses.fields(result) if _is_long(getattr(result, item.name))]
    if not long:
        return dumps({"jsonrpc": "2.0", "id": rpc_id, "result": to_json(result)})
    pace.begin()
    members = []
    for item in dataclasses.fields(result):
        value = getattr(result, item.name)
        text = await _encode_list(value, pace) if item.name in long else _text(value)
        members.append(_text(item.name) + b":" + text)
    return b'{"jsonrpc":"2.0","id":%b,"result":{%b}}\n' % (_text(rpc_id), b",".join(members))


async def _encode_list(items: tuple[Any, ...], pace: Pace) -> bytes:
    pieces = []
    for start in range(0, len(items), PIECE):
        if start:
            await pace.next()
        pieces.append(_text(items[start : start + PIECE])[1:-1])
    return b"[" + b",".join(pieces) + b"]"


def _text(value: Any) -> bytes:
    return dumps(to_json(value)).rstrip(b"\n")


def _is_long(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) > PIECE
