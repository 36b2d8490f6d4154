"""The manual says what the program does, and all of it."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import tomllib
import typing
from pathlib import Path
from typing import Any

import click
import pytest

from autodl_lib.cli import main, man_page_words
from autodl_lib.cli.command_table import COMMANDS
from autodl_lib.cli.example_settings import example_settings
from autodl_lib.cli.man_page_commands import all_commands, option_tag
from autodl_lib.cli.man_page_roff import bold, prose
from autodl_lib.cli.man_pages import PARTS, WORDS, pages
from autodl_lib.contract.errors import ERRORS
from autodl_lib.contract.failures import FailureCode
from autodl_lib.contract.replies.registry import Reply
from autodl_lib.contract.requests.registry import REQUESTS
from autodl_lib.contract.requests.terms import Access
from autodl_lib.contract.settings import OwnLimits, Settings, known_keys, settings_from_toml
from autodl_lib.contract.states import TRANSITIONS, TaskEvent, TaskState

REPO = Path(__file__).resolve().parents[2]
MAN = REPO / "man"
NAMES = ("autodl.1", "autodl.toml.5", "autodl-protocol.7", "autodl-daemon.8")
EXAMPLE = REPO / "etc" / "autodl.toml"
EVERY_SECTION = ("NAME", "SYNOPSIS", "DESCRIPTION", "FILES", "SECURITY", "SEE ALSO")


def text_of(name: str) -> str:
    return (MAN / name).read_text("ascii")


def entries(page: str) -> set[str]:
    """Return the tags of all lists, as roff."""
    return set(re.findall(r"^\.TP\n(.*)", page, re.MULTILINE))


def shown(name: str) -> str:
    """Return a page as a reader sees it, in lines that are never broken."""
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", str(MAN / name)],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "1000", "MANROFFOPT": "-c", "LC_ALL": "C.UTF-8"},
    )
    assert done.stderr == ""
    return re.sub(r".\x08", "", done.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_what_its_source_and_the_declarations_make_of_it(name: str) -> None:
    assert text_of(name) == pages(MAN)[name], "run: python -m autodl_lib.cli.man_pages man/"


def test_there_is_no_other_page() -> None:
    assert sorted(pages(MAN)) == sorted(NAMES)
    assert {path.name for path in MAN.iterdir()} == {*NAMES, *(f"{name}.in" for name in NAMES)}


def test_all_that_can_be_generated_is_on_a_page() -> None:
    sources = "".join((MAN / f"{name}.in").read_text("ascii") for name in NAMES)
    assert set(re.findall(r"@([A-Z_]+)@", sources)) == {*PARTS, *WORDS}


@pytest.mark.parametrize("name", NAMES)
def test_man_shows_a_page_without_a_warning(name: str) -> None:
    assert shown(name)


@pytest.mark.parametrize("name", NAMES)
def test_mandoc_has_nothing_to_say_of_a_page(name: str) -> None:
    done = subprocess.run(["mandoc", "-T", "lint", str(MAN / name)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_the_sections_that_one_looks_for(name: str) -> None:
    headings = re.findall(r'^\.SH "?([^"\n]+)"?$', text_of(name), re.MULTILINE)
    assert set(EVERY_SECTION) | {"EXAMPLES"} <= set(headings)
    assert headings[:3] == list(EVERY_SECTION[:3])
    assert headings[-1] == "SEE ALSO"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_its_entry(command: str) -> None:
    assert re.search(rf"^   autodl {command}\b", shown("autodl.1"), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_that_the_help_shows_has_its_entry(command: str) -> None:
    page = entries(text_of("autodl-daemon.8" if command == "daemon" else "autodl.1"))
    general = entries(text_of("autodl.1"))
    for option in all_commands()[command].params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option_tag(option) in page | general, option.opts


def test_the_options_of_autodl_itself_have_their_entries() -> None:
    spellings = re.findall(r"--[a-z]+", main.CommandGroup().get_help(click.Context(main.CommandGroup())))
    tags = " ".join(entries(text_of("autodl.1")))
    assert "--version" in spellings
    for spelling in spellings:
        assert bold(spelling) in tags, spelling


@pytest.mark.parametrize("status", sorted({0, main.INTERRUPTED, main.BROKEN_PIPE, *(e.exit_status for e in ERRORS)}))
def test_an_exit_status_has_its_entry(status: int) -> None:
    for name in ("autodl.1", "autodl-daemon.8"):
        assert bold(str(status)) in entries(text_of(name))


def test_every_bare_code_has_words() -> None:
    assert set(man_page_words.STATES) == set(TaskState)
    assert set(man_page_words.EVENTS) == set(TaskEvent)
    assert set(man_page_words.FAILURES) == set(FailureCode)
    assert set(man_page_words.ACCESS) == set(Access)


@pytest.mark.parametrize("code", [*FailureCode, *TaskState, *TaskEvent])
def test_a_failure_a_state_and_an_event_has_its_entry(code: str) -> None:
    assert bold(code) in entries(text_of("autodl.1"))


@pytest.mark.parametrize(("old", "event", "new"), [(*move, new) for move, new in TRANSITIONS.items()])
def test_the_diagram_shows_every_move_to_another_state(old: TaskState, event: TaskEvent, new: TaskState) -> None:
    diagram = shown("autodl.1").partition("What moves a task")[2].partition("The events are")[0]
    [part] = re.findall(rf"^ +{old} +(--(?:.|\n)*?)(?=^ +[a-z]+ +--|\Z)", diagram, re.MULTILINE) or [""]
    arrow = re.search(rf"--{event} -+> {new}$", part, re.MULTILINE)
    assert bool(arrow) == (old is not new)


def test_the_events_of_the_log_that_are_named_are_events_of_the_log() -> None:
    entry = text_of("autodl-daemon.8").partition(".B EVENT\n")[2].partition(".TP")[0]
    listed = " ".join(re.findall(r"^\.BR (.*)", entry, re.MULTILINE))
    named = set(re.findall(r"[a-z_]+", listed))
    supervisor = "".join(path.read_text("utf-8") for path in (REPO / "autodl_lib" / "supervisor").rglob("*.py"))
    assert {"ready", "task_failed", "stopped"} <= named
    assert named <= set(re.findall(r'"event": "(\w+)"', supervisor))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_an_error_has_its_entry(error: type) -> None:
    assert bold(error.code) in entries(text_of("autodl-protocol.7"))


@pytest.mark.parametrize("request_type", REQUESTS, ids=lambda request: request.method)
def test_a_method_has_its_entry_and_so_have_its_parameters(request_type: type) -> None:
    page = text_of("autodl-protocol.7")
    [entry] = re.findall(rf'^\.SS "{request_type.method}"$((?:.|\n)*?)(?=^\.S)', page, re.MULTILINE)
    assert entries(entry) == {bold(field.name) for field in dataclasses.fields(request_type)}
    for error in request_type.errors:
        assert bold(error.code) in entry


@pytest.mark.parametrize("reply", typing.get_args(Reply), ids=lambda reply: reply.__name__)
def test_a_result_has_its_entry_and_so_have_its_fields(reply: type) -> None:
    page = text_of("autodl-protocol.7")
    name = "task" if reply.__name__ == "Task" else reply.__name__
    [entry] = re.findall(rf'^\.SS "{name}"$((?:.|\n)*?)(?=^\.S)', page, re.MULTILINE)
    assert entries(entry) == {bold(field.name) for field in dataclasses.fields(reply)}


@pytest.mark.parametrize("key", known_keys())
def test_a_setting_has_its_entry_in_its_section(key: str) -> None:
    table, _, name = key.rpartition(".")
    heading = f"[{table}]" if table else "Top level"
    page = text_of("autodl.toml.5")
    [entry] = re.findall(rf'^\.SS "{re.escape(heading)}"$((?:.|\n)*?)(?=^\.S)', page, re.MULTILINE)
    assert any(tag.startswith(f"{bold(name)} = ") for tag in entries(entry))


@pytest.mark.parametrize("field", dataclasses.fields(OwnLimits), ids=lambda field: field.name)
def test_what_can_be_set_for_one_user_has_its_entry(field: dataclasses.Field[Any]) -> None:
    entry = text_of("autodl.toml.5").partition('.SS "[users.NAME] and [groups.NAME]"')[2].partition("\n.SH")[0]
    assert bold(field.name) in entries(entry)
    assert field.name in EXAMPLE.read_text("utf-8").partition("[users.NAME]")[2]


def test_the_installed_configuration_is_what_the_declarations_make_of_it() -> None:
    assert EXAMPLE.read_text("utf-8") == example_settings(), "run: python -m autodl_lib.cli.man_pages man/"


def test_the_installed_configuration_changes_nothing() -> None:
    assert settings_from_toml(tomllib.loads(EXAMPLE.read_text("utf-8")), "etc/autodl.toml") == Settings()


def test_the_installed_configuration_has_every_key_with_its_default() -> None:
    text = re.sub(r"^#(?=\w+ = )", "", EXAMPLE.read_text("utf-8"), flags=re.MULTILINE)
    document = tomllib.loads(text)
    found = {
        f"{key}.{inner}" if isinstance(value, dict) else key
        for key, value in document.items()
        for inner in (value if isinstance(value, dict) else [""])
    }
    assert found == set(known_keys())
    assert settings_from_toml(document, "etc/autodl.toml") == Settings()


def test_text_that_looks_like_roff_is_shown_as_it_stands() -> None:
    assert prose(".hidden and \\fBbold\\fR, 'quoted' and it's, --all, SHA-256, ~/x `a-b`") == (
        "\\&.hidden and \\efBbold\\efR, \\fBquoted\\fP and it's, \\-\\-all, SHA-256, \\(ti/x\n\\fBa\\-b\\fP"
    )
