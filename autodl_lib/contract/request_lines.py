"""One line of a client, as the request that it is.

Runs as: the supervisor.  Talks to: nobody; no I/O.
Source: JSON-RPC 2.0, without batches and notifications.
"""

from __future__ import annotations

from autodl_lib.contract.codec import decode_fields, loads
from autodl_lib.contract.errors import InvalidParams, InvalidRequest, ParseError, UnknownMethod
from autodl_lib.contract.requests.registry import REQUEST_BY_METHOD, Request

RpcId = str | int


def decode_request(line: bytes) -> tuple[RpcId, Request]:
    """Decode one line of a client.

    Raises: RequestRefused, which carries the request's id as far as it could be read.
    """
    rpc_id: RpcId | None = None
    try:
        document = loads(line)
        if not isinstance(document, dict):
            raise InvalidRequest("a request is one JSON object a line (no batches)")
        candidate = document.get("id")
        if isinstance(candidate, (str, int)) and not isinstance(candidate, bool):
            rpc_id = _check_id(candidate)
        if document.get("jsonrpc") != "2.0":
            raise InvalidRequest('a request has "jsonrpc": "2.0"')
        if rpc_id is None:
            raise InvalidRequest("a request has an id: a string or an integer")
        unknown = document.keys() - {"jsonrpc", "id", "method", "params"}
        if unknown:
            raise InvalidRequest(f"unknown member {min(unknown)!r} in the request")
        method = document.get("method")
        if not isinstance(method, str):
            raise InvalidRequest("a request has a method: a string")
        request_type = REQUEST_BY_METHOD.get(method)
        if request_type is None:
            raise UnknownMethod(f"no such method: {method[:80]!r}")
        return rpc_id, decode_fields(request_type, document.get("params", {}))
    except (ParseError, InvalidRequest, UnknownMethod, InvalidParams) as error:
        raise RequestRefused(rpc_id, error) from None


class RequestRefused(Exception):
    """A line that is no valid request: the id to answer to (None where it could not be read), and why."""

    def __init__(
        self, rpc_id: RpcId | None, error: ParseError | InvalidRequest | UnknownMethod | InvalidParams
    ) -> None:
        super().__init__(str(error))
        self.rpc_id = rpc_id
        self.error = error


def _check_id(rpc_id: RpcId) -> RpcId:
    if isinstance(rpc_id, str):
        if len(rpc_id) > 256 or any("\ud800" <= character <= "\udfff" for character in rpc_id):
            raise InvalidRequest("the id must be valid text of at most 256 characters")
    elif not -(2**63) <= rpc_id < 2**63:
        raise InvalidRequest("the id must fit 64 bits")
    return rpc_id
