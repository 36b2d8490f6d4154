"""What is wrong with an HTTP request before it is a request to the daemon: status, stable code, sentence.

Runs as: an unprivileged account.  Talks to: nobody; no I/O.
Invariants: a refusal says nothing that a caller without the token does not know already.
"""

from __future__ import annotations

from http import HTTPStatus

Headers = tuple[tuple[str, str], ...]


class Refusal(Exception):
    """An HTTP request that goes no further; the answer to it."""

    def __init__(self, status: HTTPStatus, code: str, message: str, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


def unauthorized() -> Refusal:
    """The token is missing or wrong."""
    challenge = (("WWW-Authenticate", 'Bearer realm="autodl"'),)
    message = "send the token as `Authorization: Bearer TOKEN`; it is in the file that `autodl http --help` names"
    return Refusal(HTTPStatus.UNAUTHORIZED, "unauthorized", message, challenge)


def bad_host() -> Refusal:
    """The Host header names another host: a web page may have had a name lead here."""
    message = "the Host header names neither this machine's loopback nor a --host-name"
    return Refusal(HTTPStatus.MISDIRECTED_REQUEST, "bad_host", message)


def bad_origin() -> Refusal:
    """A web page asks that nobody has allowed to."""
    return Refusal(HTTPStatus.FORBIDDEN, "bad_origin", "web pages may not ask here, unless --allow-origin names theirs")


def no_such_path() -> Refusal:
    """There is nothing at this path."""
    message = "there is /rpc, /tasks, /tasks/ID, /tasks/ID/log, /tasks/ID/explain, /history, /stats and /events"
    return Refusal(HTTPStatus.NOT_FOUND, "no_such_path", message)


def wrong_method(allowed: str) -> Refusal:
    """The path is there, the method is not for it."""
    message = f"this path takes {allowed}; changes are asked for by POST /rpc"
    return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "wrong_method", message, (("Allow", allowed),))


def unknown_method() -> Refusal:
    """No method of HTTP that this program knows."""
    return Refusal(HTTPStatus.NOT_IMPLEMENTED, "unknown_http_method", "this method of HTTP is not known here")


def not_json() -> Refusal:
    """A body of another kind; a form of a web page can send no JSON."""
    message = "the body of POST /rpc is `Content-Type: application/json`, without a Content-Encoding"
    return Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not_json", message)


def no_length() -> Refusal:
    """A body of unknown length."""
    return Refusal(HTTPStatus.LENGTH_REQUIRED, "length_required", "send the body with a Content-Length, not in chunks")


def too_long(limit_bytes: int) -> Refusal:
    """A body over the limit of a line of the wire."""
    message = f"the body is over the limit of {limit_bytes} bytes"
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "line_too_long", message)


def unwanted_body() -> Refusal:
    """A body where none belongs."""
    return Refusal(HTTPStatus.BAD_REQUEST, "unwanted_body", "this request has no body")


def bad_http(status: int, message: str) -> Refusal:
    """Bytes that are not HTTP/1.1, or a header that contradicts another."""
    try:
        known = HTTPStatus(status)
    except ValueError:
        known = HTTPStatus.BAD_REQUEST
    return Refusal(known, "bad_http", message)


def too_slow() -> Refusal:
    """The request did not come in time."""
    return Refusal(HTTPStatus.REQUEST_TIMEOUT, "too_slow", "the request did not come in time")


def too_many() -> Refusal:
    """All places are taken by clients that have shown the token."""
    message = "too many connections or streams; close some, or try again"
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "busy", message, (("Retry-After", "2"),))
