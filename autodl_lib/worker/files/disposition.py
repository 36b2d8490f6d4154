"""Which file name a Content-Disposition header proposes.

Runs as: the task's owner.  Talks to: nobody; no I/O.
Invariants: input is hostile; what comes out is text that file_name.sanitise must still make safe. `filename*`
wins over `filename`; what can't be decoded is passed over.
Source: RFC 6266 (section 4), RFC 8187 (section 3.2).
Known limits: RFC 2047 encoded words, which some servers send against the RFC, are not decoded.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

_MAX_LENGTH = 8192
_PARAMETER = re.compile(
    r""";\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"]*))""",
    re.DOTALL,
)
_CHARSETS = {"utf-8": "utf-8", "iso-8859-1": "latin-1"}


def proposed_name(value: str) -> str | None:
    """Return the name that a Content-Disposition value proposes, None without one."""
    if len(value) > _MAX_LENGTH:
        return None
    plain: str | None = None
    extended: str | None = None
    for match in _PARAMETER.finditer(value if ";" in value.split("=", 1)[0] else ";" + value):
        name = match[1].lower()
        text = re.sub(r"\\(.)", r"\1", match[2], flags=re.DOTALL) if match[2] is not None else match[3].strip()
        if name == "filename*" and extended is None:
            extended = _decode_extended(text)
        elif name == "filename" and plain is None:
            plain = text
    return extended or plain or None


def _decode_extended(value: str) -> str | None:
    parts = value.split("'", 2)
    charset = _CHARSETS.get(parts[0].strip().lower())
    if len(parts) != 3 or charset is None:
        return None
    try:
        return unquote_to_bytes(parts[2]).decode(charset)
    except UnicodeDecodeError:
        return None
