"""The manual's entries for what contract/ declares: settings, methods, replies, errors, failures, states.

Runs as: a developer.  Talks to: nobody; no I/O.
Invariants: nothing that is declared is left out.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from autodl_lib.cli.man_page_roff import bold, example, item, paragraphs, prose, section, sentence
from autodl_lib.cli.man_page_types import field_words, value_words
from autodl_lib.cli.man_page_words import ACCESS, EVENTS, EXIT_STATUSES, FAILURES, STATES
from autodl_lib.contract.errors import ERRORS
from autodl_lib.contract.failures import RETRYABLE, FailureCode
from autodl_lib.contract.fields import param_of
from autodl_lib.contract.replies.limits import TaskLimit
from autodl_lib.contract.replies.records import LogEntry
from autodl_lib.contract.replies.registry import Reply
from autodl_lib.contract.requests.registry import REQUESTS
from autodl_lib.contract.settings import SECTIONS, TABLES, OwnLimits, Settings
from autodl_lib.contract.states import INITIAL_STATES, SETTLED, TRANSITIONS, TaskState
from autodl_lib.contract.task import Task, TaskError
from autodl_lib.contract.transfer_options import PieceHashes

_PARTS_OF_OTHERS = (PieceHashes, TaskError, LogEntry, TaskLimit)


def settings_entries() -> str:
    """Return every key of autodl.toml, section by section."""
    hints = typing.get_type_hints(Settings)
    top = [field for field in dataclasses.fields(Settings) if field.name not in (*SECTIONS, *TABLES)]
    lines = [section("Top level"), *[_setting(field, hints[field.name]) for field in top]]
    for section_type in SECTIONS.values():
        heading, _, meaning = (section_type.__doc__ or "").partition(": ")
        lines += [section(heading), prose(sentence(meaning))]
        hints = typing.get_type_hints(section_type)
        lines += [_setting(field, hints[field.name]) for field in dataclasses.fields(section_type)]
    return "\n".join([*lines, _own_limits()])


def method_entries() -> str:
    """Return every method with its parameters and errors."""
    return "\n".join(_method(request) for request in REQUESTS)


def reply_entries() -> str:
    """Return every kind of result with its fields, and the objects inside them."""
    lines: list[str] = []
    for reply in [*typing.get_args(Reply), *_PARTS_OF_OTHERS]:
        lines += [section("task" if reply is Task else reply.__name__), paragraphs(reply.__doc__ or "")]
        hints = typing.get_type_hints(reply)
        lines += [
            item(bold(field.name), sentence(field_words(field, hints[field.name])))
            for field in dataclasses.fields(reply)
        ]
    return "\n".join(lines)


def error_entries() -> str:
    """Return every error code with its numbers."""
    return "\n".join(
        item(
            bold(error.code),
            f"{(error.__doc__ or '').strip()} JSON-RPC {error.rpc_code}, HTTP {error.http_status},"
            f" exit status {error.exit_status}.{' May pass: ask again later.' if error.retryable else ''}",
        )
        for error in ERRORS
    )


def failure_entries() -> str:
    """Return every reason that a task may fail for: first those that it is tried again after."""
    lines = [section("Tried again by themselves")]
    lines += [item(bold(code), FAILURES[code]) for code in FailureCode if code in RETRYABLE]
    lines.append(section("Final"))
    lines += [item(bold(code), FAILURES[code]) for code in FailureCode if code not in RETRYABLE]
    return "\n".join(lines)


def exit_status_entries() -> str:
    """Return every exit status, with the errors that lead to it."""
    lines = []
    for status, meaning in EXIT_STATUSES.items():
        codes = ", ".join(f"`{error.code}`" for error in ERRORS if error.exit_status == status)
        lines.append(item(bold(str(status)), f"{meaning}{f' Errors: {codes}.' if codes else ''}"))
    return "\n".join(lines)


def state_entries() -> str:
    """Return every state and what it means."""
    entries = []
    for state in TaskState:
        start = " A new task begins here." if state in INITIAL_STATES else ""
        end = " Settled: it stays so until its owner asks for more." if state in SETTLED else ""
        entries.append(item(bold(state), f"{STATES[state]}{start}{end}"))
    return "\n".join(entries)


def state_diagram() -> str:
    """Return every move from one state to another, drawn as arrows."""
    state_width = max(len(state) for state in TaskState)
    event_width = max(len(event) for event in EVENTS) + 2
    lines: list[str] = []
    for state in TaskState:
        left: str = state
        for (old, event), new in TRANSITIONS.items():
            if old is state and new is not state:
                lines.append(f"{left:<{state_width}} --{event + ' ':-<{event_width}}-> {new}")
                left = ""
    return example(lines)


def event_entries() -> str:
    """Return what each event is."""
    return "\n".join(item(bold(event), sentence(meaning)) for event, meaning in EVENTS.items())


def _own_limits() -> str:
    heading, _, meaning = (OwnLimits.__doc__ or "").partition(": ")
    hints = typing.get_type_hints(OwnLimits)
    lines = [
        section(heading),
        paragraphs(sentence(meaning.strip())),
        f".PP\n{prose('A key that is left out is as in `[limits]`.')}",
    ]
    for field in dataclasses.fields(OwnLimits):
        kind = field_words(field, hints[field.name]).replace(" or null", "")
        lines.append(item(bold(field.name), f"{sentence(param_of(field).help)} ({kind[0].upper()}{kind[1:]}.)"))
    return "\n".join(lines)


def _setting(field: dataclasses.Field[Any], hint: Any) -> str:
    tag = f"{bold(field.name)} = {bold(value_words(field.default))}"
    kind = field_words(field, hint)
    return item(tag, f"{sentence(param_of(field).help)} ({kind[0].upper()}{kind[1:]}.)")


def _method(request: Any) -> str:
    hints = typing.get_type_hints(request)
    errors = ", ".join(f"`{error.code}`" for error in request.errors)
    lines = [section(request.method), prose(request.__doc__)]
    lines.append(f".PP\n{prose(f'Who may: {ACCESS[request.access]}.')}\n{prose(f'Errors of its own: {errors}.')}")
    # A request's own parameters come before those that it inherits, as in `--help`.
    own = request.__annotations__
    for field in sorted(dataclasses.fields(request), key=lambda field: field.name not in own):
        kind = field_words(field, hints[field.name])
        default = "required" if field.default is dataclasses.MISSING else f"default `{value_words(field.default)}`"
        meaning = sentence(param_of(field).help)
        lines.append(item(bold(field.name), f"{meaning} ({kind[0].upper()}{kind[1:]}; {default}.)"))
    return "\n".join(lines)
