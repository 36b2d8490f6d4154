"""Where a download is saved, as the daemon must be told: an absolute folder, and maybe a name.

Runs as: the caller.  Talks to: nobody but the kernel, for the current folder.
Invariants: a folder that begins with ~ goes to the daemon as it is, which knows the owner's home.
"""

from __future__ import annotations

import os

import click


def folder_and_name(folder: str | None, output: str | None, *, default: str) -> tuple[str, str | None]:
    """Resolve `--dir` and `--output`; an output with a slash names a folder too, seen from `--dir` or else from here.

    Raises: click.UsageError.
    """
    if output is None:
        return absolute(default if folder is None else folder), None
    before, name = os.path.split(output)
    if name in ("", ".", ".."):
        raise click.UsageError(f"--output must end in a file's name: {output!r}")
    if not before:
        return absolute(default if folder is None else folder), name
    if folder is None or before.startswith(("~", "/")):
        return absolute(before), name
    return absolute(os.path.join(folder, before)), name


def absolute(folder: str) -> str:
    """Resolve a folder from the current one."""
    if not folder:
        raise click.UsageError("the folder to save to must not be empty")
    if folder.startswith("~"):
        return folder
    joined = folder if folder.startswith("/") else os.path.join(_here(), folder)
    # Taking a `..` out would be wrong behind a symbolic link; that is the kernel's business.
    return joined if ".." in joined.split("/") else os.path.normpath(joined)


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise click.UsageError("the current folder is gone; name another one with --dir") from None
