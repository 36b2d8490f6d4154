"""HTTP requests and answers as data.

Runs as: an unprivileged account.  Talks to: nobody; no I/O.
Invariants: no answer is cached or taken for anything but JSON by a browser.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from autodl_lib.contract.codec import dumps
from autodl_lib.contract.errors import AutodlError
from autodl_lib.http_shim.refusals import Headers, Refusal, bad_http

PLAIN_HEADERS: Headers = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)
"""Of every answer."""

RETRY_AFTER: Headers = (("Retry-After", "2"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A request's first line and headers; names of headers are lower case."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        """The target up to its question mark."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The target behind its question mark."""
        return self.target.partition("?")[2]

    def one(self, name: str) -> str | None:
        """Return a header's value, or None where it is missing.

        Raises: Refusal where it is there twice.
        """
        values = [value for key, value in self.headers if key == name]
        if len(values) > 1:
            raise bad_http(HTTPStatus.BAD_REQUEST, f"the header {name} is there more than once")
        return values[0] if values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes = b""
    headers: Headers = ()
    content_type: str = "application/json"


def result_answer(result: Any) -> Answer:
    """Answer a question with its result."""
    return Answer(status=HTTPStatus.OK, body=dumps(result))


def error_answer(error: AutodlError) -> Answer:
    """Answer a question with an error of the daemon or of the way to it."""
    body = dumps({"error": {"code": error.code, "message": str(error)}})
    return Answer(status=error.http_status, body=body, headers=retry_headers(error))


def refusal_answer(refusal: Refusal) -> Answer:
    """Answer a request that goes no further."""
    body = dumps({"error": {"code": refusal.code, "message": str(refusal)}})
    return Answer(status=refusal.status, body=body, headers=refusal.headers)


def retry_headers(error: AutodlError) -> Headers:
    """Say that asking again may help, where it may."""
    return RETRY_AFTER if error.retryable else ()
