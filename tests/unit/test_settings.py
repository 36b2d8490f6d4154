"""autodl.toml: what design.md fixes, and that nothing wrong is ever taken."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodl_lib.contract.errors import BadSettings
from autodl_lib.contract.settings import SECTIONS, Settings, known_keys, settings_from_toml

FIXED = """
max_tasks_num = 10
[transfer]
connections = 8                  # per file, at most
connections_per_host = 16
connect_timeout_s = 30
stall_timeout_s = 60
rate_bps = 0
min_free_bytes = 104857600
durable = true
[retry]
max_attempts = 10
first_delay_s = 5
max_delay_s = 600
[access]
allow_users = ["*"]
allow_groups = []
admin_group = "autodl-admin"
[limits]
running = 0
queued = 1000000
rate_bps = 0
[history]
keep_days = 30
"""


def test_the_documented_file_is_the_default() -> None:
    assert settings_from_toml(tomllib.loads(FIXED), "file") == Settings()


def test_an_empty_file_is_the_default() -> None:
    assert settings_from_toml({}, "file") == Settings()


@pytest.mark.parametrize("key", known_keys())
def test_every_key_misspelt_is_refused_and_named(key: str) -> None:
    section, _, name = key.rpartition(".")
    wrong = name + "x"
    document: dict[str, Any] = {section: {wrong: 1}} if section else {wrong: 1}
    with pytest.raises(BadSettings, match=rf"unknown key .*{wrong}; did you mean {key}\?"):
        settings_from_toml(document, "file")


def test_a_key_in_the_wrong_section_names_the_right_one() -> None:
    with pytest.raises(BadSettings, match=r"did you mean history\.keep_days"):
        settings_from_toml({"keep_days": 3}, "file")


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_that_is_no_table_is_refused(section: str) -> None:
    with pytest.raises(BadSettings, match=rf"{section} must be a table"):
        settings_from_toml({section: 1}, "file")


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers())


@given(st.dictionaries(st.sampled_from(known_keys()), plain))
def test_any_values_give_settings_or_a_refusal_that_names_the_file(values: dict[str, Any]) -> None:
    document: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (document.setdefault(section, {}) if section else document)[name] = value
    try:
        settings_from_toml(document, "the-file")
    except BadSettings as error:
        assert "the-file" in str(error)  # noqa: PT017
