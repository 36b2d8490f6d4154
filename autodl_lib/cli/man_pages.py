"""The manual, made from its sources and the declarations: `python -m autodl_lib.cli.man_pages man/`.

Runs as: a developer.  Talks to: man/*.in, which it reads, the pages beside them, and etc/autodl.toml.
A source is man(7) with what people write; a line `@NAME@` stands for what the declarations say.
Invariants: a name that is not known, and a part that no page uses, are errors; a test compares the files.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from autodl_lib import __version__
from autodl_lib.cli import man_page_commands, man_page_contract
from autodl_lib.cli.example_settings import example_settings
from autodl_lib.contract.codec import MAX_LINE_BYTES, PROTOCOL_VERSION

PARTS: dict[str, Callable[[], str]] = {
    "COMMANDS": man_page_commands.command_entries,
    "TRANSFER_OPTIONS": man_page_commands.transfer_options,
    "GENERAL_OPTIONS": man_page_commands.general_options,
    "DAEMON_OPTIONS": man_page_commands.daemon_options,
    "STATES": man_page_contract.state_entries,
    "STATE_DIAGRAM": man_page_contract.state_diagram,
    "EVENTS": man_page_contract.event_entries,
    "FAILURES": man_page_contract.failure_entries,
    "EXIT_STATUS": man_page_contract.exit_status_entries,
    "SETTINGS": man_page_contract.settings_entries,
    "METHODS": man_page_contract.method_entries,
    "REPLIES": man_page_contract.reply_entries,
    "ERRORS": man_page_contract.error_entries,
}
WORDS = {
    "VERSION": __version__,
    "PROTOCOL_VERSION": str(PROTOCOL_VERSION),
    "MAX_LINE_MIB": str(MAX_LINE_BYTES // 1024**2),
}

_NAME = re.compile(r"@([A-Z_]+)@")


def pages(folder: Path) -> dict[str, str]:
    """Return every page by its file's name, made from the sources in `folder`."""
    return {source.stem: page(source.read_text("ascii"), source.name) for source in sorted(folder.glob("*.in"))}


def page(source: str, name: str) -> str:
    """Fill a page's source; `name` is for its first line."""
    head = f'.\\" Made from man/{name} and the declarations by autodl_lib/cli/man_pages.py: change those.\n'
    return head + _NAME.sub(lambda match: WORDS.get(match[1]) or PARTS[match[1]](), source)


def main(folder: Path) -> None:
    """Write all pages, and the configuration file beside the folder."""
    for name, text in pages(folder).items():
        (folder / name).write_text(text, "ascii")
    settings = folder.resolve().parent / "etc" / "autodl.toml"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(example_settings(), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
