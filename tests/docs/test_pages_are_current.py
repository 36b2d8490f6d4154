"""The pages say what the program does."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from autodl_lib.cli.protocol_page import page
from autodl_lib.contract.requests.registry import REQUESTS
from autodl_lib.contract.settings import known_keys, settings_from_toml

REPO = Path(__file__).resolve().parents[2]
README = (REPO / "README.md").read_text("utf-8")
PACKAGE = REPO / "autodl_lib"


def test_the_protocol_page_is_what_the_declarations_make_of_it() -> None:
    assert (REPO / "docs" / "PROTOCOL.md").read_text("utf-8") == page()


def test_the_settings_that_the_readme_shows_are_accepted() -> None:
    [example] = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    settings_from_toml(tomllib.loads(example), "README.md")


def test_the_settings_that_the_readme_shows_are_known_keys() -> None:
    [example] = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    document = tomllib.loads(example)
    shown = {
        f"{key}.{inner}" if isinstance(value, dict) else key
        for key, value in document.items()
        for inner in (value if isinstance(value, dict) else [""])
    }
    assert shown <= set(known_keys())


@pytest.mark.parametrize("request_type", REQUESTS, ids=lambda request: request.method)
def test_the_readme_names_every_command(request_type: type) -> None:
    command = request_type.method.replace("_", "-")
    assert re.search(rf"`[^`\n]*\b{command}\b", README), command


def test_the_help_lists_every_command() -> None:
    shown = subprocess.run(
        [sys.executable, str(REPO / "autodl.py"), "--help"], capture_output=True, text=True, check=True
    ).stdout
    for request_type in REQUESTS:
        assert re.search(rf"^  {request_type.method.replace('_', '-')}\b", shown, re.MULTILINE), request_type.method


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_at_most_500_lines_and_says_who_runs_it(file: Path) -> None:
    text = file.read_text("utf-8")
    assert text.count("\n") <= 500
    card = ast.get_docstring(ast.parse(text)) or ""
    assert card, "a module opens with what it is"
    if file != PACKAGE / "__init__.py":
        assert "uns as:" in card


def test_no_folder_is_a_drawer_for_odds_and_ends() -> None:
    drawers = {"utils", "helpers", "common", "base"}
    assert not {path.stem for path in PACKAGE.rglob("*")} & drawers


@pytest.mark.parametrize("package", sorted(p.parent for p in PACKAGE.rglob("*/__init__.py")), ids=lambda p: p.name)
def test_a_package_says_who_runs_it_and_nothing_else(package: Path) -> None:
    text = (package / "__init__.py").read_text("utf-8")
    assert text.startswith('"""Runs as: ')
    assert text.count("\n") == 1
