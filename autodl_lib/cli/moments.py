"""The option --since: a point in time as people write it.

Runs as: the caller.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any

import click

_AGO = r"(\d+(?:\.\d+)?)\s*([smhdw])"
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_WORDS = {"today": 0, "yesterday": 1}


class Moment(click.ParamType):  # type: ignore[type-arg]
    """A point in time: 2h, 3d (ago), today, 2026-11-22, 2026-11-22T10:30, or epoch seconds."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value).strip()
        ago = re.fullmatch(_AGO, text)
        try:
            if ago is not None:
                at = time.time() - float(ago[1]) * _UNIT_S[ago[2]]
            elif text in _WORDS:
                midnight = datetime.now().replace(hour=0, minute=0, second=0, microsecond=0)
                at = midnight.timestamp() - _WORDS[text] * 86400
            elif text.replace(".", "", 1).isdecimal():
                at = float(text)
            else:
                at = datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is no time such as 2h, 3d, today, 2026-11-22 or 2026-11-22T10:30", param, ctx)
        return min(max(0.0, at), 1e11)


def since_option(meaning: str) -> click.Option:
    """Make the option; `meaning` begins its help."""
    return click.Option(
        ["since", "--since"], type=Moment(), metavar="TIME", help=f"{meaning}: 2h, 3d, today, 2026-11-22T10:30"
    )
