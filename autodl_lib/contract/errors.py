"""Every error that autodl answers with: a stable code, its exit status, its JSON-RPC number.

Runs as: everyone.  Talks to: nobody; no I/O.
Invariants: a code, once published, keeps its meaning. The docstring says when it is raised; the
message given to the constructor is for people and says what to do.
"""

from __future__ import annotations

from typing import ClassVar


class AutodlError(Exception):
    """The root of all; a caller may show str() of it to a person."""

    code: ClassVar[str] = "internal"
    exit_status: ClassVar[int] = 1
    rpc_code: ClassVar[int] = -32000
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False


class ParseError(AutodlError):
    """The line is not JSON in UTF-8, or nests too deeply."""

    code = "parse_error"
    rpc_code = -32700
    http_status = 400


class InvalidRequest(AutodlError):
    """The line is JSON, but no JSON-RPC 2.0 request with an id."""

    code = "invalid_request"
    rpc_code = -32600
    http_status = 400


class LineTooLong(InvalidRequest):
    """A line is over the limit of 4 MiB; the connection is closed after this answer."""

    code = "line_too_long"
    http_status = 413


class UnknownMethod(AutodlError):
    """No such method."""

    code = "unknown_method"
    exit_status = 2
    rpc_code = -32601
    http_status = 404


class InvalidParams(AutodlError):
    """A parameter is missing, unknown, of a wrong type or out of its range."""

    code = "invalid_params"
    exit_status = 2
    rpc_code = -32602
    http_status = 400


class BadUrl(InvalidParams):
    """The URL can't be downloaded by anyone: no host, a scheme that autodl doesn't speak, control characters."""

    code = "bad_url"


class BadSettings(AutodlError):
    """The configuration file or a flag of the daemon is wrong; the message names the key and the nearest one."""

    code = "bad_settings"
    exit_status = 2


class InternalError(AutodlError):
    """A defect of autodl; the daemon's log has the details."""

    code = "internal"
    rpc_code = -32603


class NoSuchTask(AutodlError):
    """There is no such task, or it is another user's: the answer is the same for both."""

    code = "no_such_task"
    exit_status = 4
    http_status = 404


class NotAllowed(AutodlError):
    """The caller may not do this."""

    code = "not_allowed"
    exit_status = 5
    http_status = 403


class WrongState(AutodlError):
    """The task's state does not permit this."""

    code = "wrong_state"
    http_status = 409


class QueueFull(AutodlError):
    """The caller has as many tasks queued as the administrator allows."""

    code = "queue_full"
    http_status = 429
    retryable = True


class Busy(AutodlError):
    """The daemon has as many connections as it takes, in all or of this user; or no memory left for what is asked."""

    code = "busy"
    http_status = 503
    retryable = True


class ShuttingDown(AutodlError):
    """The daemon is stopping; ask again when it is back."""

    code = "shutting_down"
    exit_status = 3
    http_status = 503
    retryable = True


class NoDaemon(AutodlError):
    """No daemon answers on the socket."""

    code = "no_daemon"
    exit_status = 3
    http_status = 503
    retryable = True


class ProtocolMismatch(AutodlError):
    """What answers on the socket is no autodl daemon, or speaks another protocol version."""

    code = "protocol_mismatch"
    exit_status = 3
    http_status = 502


class TimedOut(AutodlError):
    """What was waited for did not happen in time."""

    code = "timed_out"
    exit_status = 6
    http_status = 504


class StoreUnusable(AutodlError):
    """The queue's database can't be used: corrupt, newer than this program, not ours, or its disk is full."""

    code = "store_unusable"


class AlreadyRunning(AutodlError):
    """Another daemon has the same socket or state folder."""

    code = "already_running"


ERRORS: tuple[type[AutodlError], ...] = (
    ParseError,
    InvalidRequest,
    LineTooLong,
    UnknownMethod,
    InvalidParams,
    BadUrl,
    BadSettings,
    InternalError,
    NoSuchTask,
    NotAllowed,
    WrongState,
    QueueFull,
    Busy,
    ShuttingDown,
    NoDaemon,
    ProtocolMismatch,
    TimedOut,
    StoreUnusable,
    AlreadyRunning,
)

_BY_CODE = {error.code: error for error in ERRORS}


def error_from_code(code: str, message: str) -> AutodlError:
    """Rebuild the error that a daemon answered with; an unknown code becomes InternalError."""
    return _BY_CODE.get(code, InternalError)(message)
