"""The options of `autodl http`, declared once: the command line, its manual and the server take them from here.

Runs as: everyone.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from autodl_lib.contract.fields import param
from autodl_lib.contract.light_dataclass import dataclass

DEFAULT_LISTEN = "127.0.0.1:6736"
"""The port of the first autodl, of 2017. IANA has given it to nobody, and the kernel gives it to no client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """What `autodl http` was asked to do."""

    listen: tuple[str, ...] = param(
        f"listen here: ADDRESS:PORT or unix:PATH; may be repeated [default: {DEFAULT_LISTEN}]",
        default=(),
        cli=("--listen",),
        metavar="ADDRESS",
    )
    token_file: str | None = param(
        "the token's file, made if it is not there [default: ~/.local/state/autodl/http-token]",
        default=None,
        cli=("--token-file",),
        metavar="FILE",
    )
    folders: tuple[str, ...] = param(
        "tasks may save to this folder and below, and name files in it; may be repeated, / is anywhere"
        " [default: ~/autodl-storage]",
        default=(),
        cli=("--dir",),
        metavar="DIR",
    )
    host_names: tuple[str, ...] = param(
        "also answer to this name in the Host header, such as that of a proxy; may be repeated",
        default=(),
        cli=("--host-name",),
        metavar="NAME",
    )
    origins: tuple[str, ...] = param(
        "let web pages of this origin ask, such as https://example.org; they need the token too; may be repeated",
        default=(),
        cli=("--allow-origin",),
        metavar="ORIGIN",
    )
    allow_remote: bool = param(
        "listen where other machines can reach it, though there is no TLS", default=False, cli=("--allow-remote",)
    )
    read_only: bool = param("refuse what changes something", default=False, cli=("--read-only",))
    patience_s: float | None = param(
        "how long a client may take for anything, in place of the times in docs/HTTP.md", default=None, minimum=0.01
    )
