"""docs/PROTOCOL.md, made from the declarations: `python -m autodl_lib.cli.protocol_page > docs/PROTOCOL.md`.

Runs as: a developer.  Talks to: stdout.
Invariants: what is said of methods, parameters, errors, states and settings comes from contract/; a test
compares the file with what this prints.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from enum import StrEnum
from typing import Any

from autodl_lib.contract.codec import MAX_LINE_BYTES, PROTOCOL_VERSION
from autodl_lib.contract.errors import ERRORS, AutodlError
from autodl_lib.contract.failures import RETRYABLE, FailureCode
from autodl_lib.contract.fields import MAX_INT, Param, param_of
from autodl_lib.contract.replies.registry import Reply
from autodl_lib.contract.requests.registry import REQUESTS
from autodl_lib.contract.states import SETTLED, TRANSITIONS, TaskState
from autodl_lib.contract.task import Task

_INTRODUCTION = f"""\
# The wire of autodl, version {PROTOCOL_VERSION}

This page is made from the declarations in `autodl_lib/contract/`; change those, then run
`python -m autodl_lib.cli.protocol_page > docs/PROTOCOL.md`.

## Transport

A Unix stream socket: `--socket`, else `$AUTODL_SOCKET`, else `/run/autodl/autodl.sock` where it exists, else
the private daemon's `$XDG_RUNTIME_DIR/autodl/autodl.sock`. Who asks is who connected, by the kernel's word
(`SO_PEERCRED`); nothing on the wire says so.

JSON-RPC 2.0, one object a line, UTF-8, at most {MAX_LINE_BYTES:,} bytes with its newline. No batches, and
every request has an `id` (a string or an integer). The daemon speaks first:

    {{"jsonrpc":"2.0","method":"hello","params":{{"protocol":{PROTOCOL_VERSION},"version":"0.1.0"}}}}

Requests may be pipelined. Replies come in the order of the requests; a question sees the effect of every
change that was asked for before it on the same connection, and changes that arrive together share one
commit. The reply to a change is sent when it is on disk.

    --> {{"jsonrpc":"2.0","id":1,"method":"add","params":{{"urls":["https://example.org/a"],"dir":"/tmp"}}}}
    <-- {{"jsonrpc":"2.0","id":1,"result":{{"ids":[17]}}}}
    --> {{"jsonrpc":"2.0","id":2,"method":"status","params":{{"id":4711}}}}
    <-- {{"jsonrpc":"2.0","id":2,"error":{{"code":-32000,"message":"no such task: 4711",
                                        "data":{{"code":"no_such_task"}}}}}}    (on one line)

Unknown members and parameters, wrong types (`true` is no integer), numbers out of range, `NaN`, duplicate
keys, invalid UTF-8 and lone surrogates are errors. `data.code` is stable; messages are for people.

`watch` is the one method that streams: a notification `task` for each task as it is now, then the reply,
then a notification whenever one changes, until the client closes. With `brief`, finished tasks come as
notifications `saved`, many in one, with their files' paths alone. A slow reader may miss states in
between, never the last one; one that reads nothing for a minute is cut off.
"""


def page() -> str:
    """Return the whole page."""
    parts = [_INTRODUCTION, "## Methods\n"]
    parts += [_method(request) for request in REQUESTS]
    parts += ["## Replies\n", *[_reply(reply) for reply in typing.get_args(Reply)]]
    parts += [_states(), _errors(), _failures()]
    return "\n".join(parts)


def _method(request: Any) -> str:
    lines = [f"### {request.method}\n", f"{request.__doc__}\n"]
    errors = ", ".join(f"`{error.code}`" for error in request.errors)
    lines.append(f"Who may: {request.access.value}. Errors of its own: {errors}.\n")
    fields = dataclasses.fields(request)
    hints = typing.get_type_hints(request)
    lines += ["| parameter | type | default | meaning |", "|---|---|---|---|"]
    for field in fields:
        declared = param_of(field)
        default = "required" if field.default is dataclasses.MISSING else f"`{_json(field.default)}`"
        bounds = _bounds(declared, hints[field.name])
        meaning = declared.help.replace("|", "\\|") + (f" ({bounds})" if bounds else "")
        lines.append(f"| `{field.name}` | {_type(hints[field.name])} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _reply(reply: Any) -> str:
    hints = typing.get_type_hints(reply)
    fields = ", ".join(f"`{field.name}` ({_type(hints[field.name])})" for field in dataclasses.fields(reply))
    name = "task" if reply is Task else reply.__name__
    return f"**{name}**: {reply.__doc__.strip()}\n\n{fields}\n"


def _states() -> str:
    lines = ["## A task's states\n", "| state | event | next state |", "|---|---|---|"]
    lines += [f"| {old} | {event} | {new} |" for (old, event), new in TRANSITIONS.items()]
    settled = ", ".join(state for state in TaskState if state in SETTLED)
    return "\n".join(lines) + f"\n\nSettled, until the owner asks for more: {settled}.\n"


def _errors() -> str:
    lines = ["## Errors\n", "| `data.code` | JSON-RPC code | exit status | HTTP | when |", "|---|---|---|---|---|"]
    for error in ERRORS:
        lines.append(
            f"| `{error.code}` | {error.rpc_code} | {error.exit_status} | {error.http_status} | {_meaning(error)} |"
        )
    return "\n".join(lines) + "\n"


def _meaning(error: type[AutodlError]) -> str:
    return (error.__doc__ or "").strip()


def _failures() -> str:
    retried = ", ".join(f"`{code}`" for code in FailureCode if code in RETRYABLE)
    final = ", ".join(f"`{code}`" for code in FailureCode if code not in RETRYABLE)
    return f"## A task's `error.code`\n\nTried again by itself: {retried}.\n\nFinal: {final}.\n"


def _bounds(declared: Param, hint: Any) -> str:
    numeric = any(kind in str(hint) for kind in ("int", "float"))
    low = f"from {declared.minimum:g}" if numeric and declared.minimum > -MAX_INT else ""
    high = f"to {declared.maximum:g}" if numeric and declared.maximum < MAX_INT else ""
    return " ".join(filter(None, [low, high, declared.unit and f"in {declared.unit}"]))


def _type(hint: Any) -> str:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join("null" if argument is type(None) else _type(argument) for argument in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"object of {_type(arguments[1])}"
    if isinstance(hint, typing.NewType):
        return _type(hint.__supertype__)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return ", ".join(f"`{member.value}`" for member in hint)
    names = {int: "integer", str: "string", bool: "boolean", float: "number", Task: "task"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _json(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return "[]" if value == () else str(value)


if __name__ == "__main__":
    sys.stdout.write(page())
