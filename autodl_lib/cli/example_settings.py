"""The configuration file as it is installed: every key with its meaning and its default, commented out.

Runs as: a developer, who writes etc/autodl.toml; root, by `autodl install-service`.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

import dataclasses
import textwrap
import typing
from typing import Any

from autodl_lib.cli.man_page_types import range_words, value_words
from autodl_lib.contract.fields import param_of
from autodl_lib.contract.settings import SECTIONS, TABLES, OwnLimits, Settings

_LINE_LENGTH = 100

_HEAD = """\
# Configuration of the autodl daemon; see autodl.toml(5).
#
# Every line that is commented out shows a default. `systemctl reload autodl` reads this file again and interrupts no
# download. An unknown key is an error that names the nearest one, and then nothing is changed.
"""


def example_settings() -> str:
    """Return the whole file."""
    hints = typing.get_type_hints(Settings)
    top = [field for field in dataclasses.fields(Settings) if field.name not in (*SECTIONS, *TABLES)]
    lines = [_HEAD, *[_key(field, hints[field.name]) for field in top]]
    for name, section_type in SECTIONS.items():
        meaning = (section_type.__doc__ or "").partition(": ")[2].rstrip(".")
        lines.append(f"[{name}]\n# {meaning[0].upper()}{meaning[1:]}.\n")
        hints = typing.get_type_hints(section_type)
        lines += [_key(field, hints[field.name]) for field in dataclasses.fields(section_type)]
    return "\n".join([*lines, _own_limits()])


def _own_limits() -> str:
    """Return what says how limits of one user or group are written."""
    heading, _, meaning = (OwnLimits.__doc__ or "").partition(": ")
    keys = ", ".join(field.name for field in dataclasses.fields(OwnLimits))
    words = f"{heading}: {' '.join(meaning.split())} Their keys: {keys}. For example:"
    comment = textwrap.fill(words, _LINE_LENGTH, initial_indent="# ", subsequent_indent="# ")
    return f"{comment}\n#\n#   [users.alice]\n#   weight = 2\n"


def _key(field: dataclasses.Field[Any], hint: Any) -> str:
    declared = param_of(field)
    bounds = range_words(declared, hint)
    meaning = f"{declared.help[0].upper()}{declared.help[1:]}{f' ({bounds})' if bounds else ''}."
    comment = textwrap.fill(meaning, _LINE_LENGTH, initial_indent="# ", subsequent_indent="# ")
    return f"{comment}\n#{field.name} = {value_words(field.default)}\n"
