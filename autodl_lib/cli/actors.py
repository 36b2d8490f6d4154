"""Who asked for a change, in words.

Runs as: the caller.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from autodl_lib.cli.text import clean


def actor_words(actor: str, pid: int | None, program: str | None) -> str:
    """Say who asked for a change, and from which process."""
    process = ", ".join(str(part) for part in (program, f"process {pid}" if pid else None) if part)
    return clean(f"{actor} ({process})" if process else actor)
