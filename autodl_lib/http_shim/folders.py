"""Where tasks that come by HTTP may save, and which files of the account they may name.

Runs as: an unprivileged account.  Talks to: the environment, for what `~` is.
Security: who has the token could else save to any place of the account that runs this, its start-up files included,
as with other download services. Paths are compared as they are written, without `..`; a task can make no symbolic
link, so one that leads out of a folder was put there by the account itself. What is checked is what is sent.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from autodl_lib.contract.errors import InvalidParams, NotAllowed
from autodl_lib.contract.fields import param_of
from autodl_lib.contract.requests.adding import DEFAULT_DIR, Add

_PATHS = tuple(field.name for field in dataclasses.fields(Add) if param_of(field).is_path)


class Folders:
    """The folders that tasks are kept to."""

    def __init__(self, folders: tuple[str, ...]) -> None:
        """Use these folders, or the default one.

        Raises: InvalidParams.
        """
        self._folders = tuple(_absolute("--dir", folder) for folder in folders or (DEFAULT_DIR,))

    def keep(self, request: Add) -> Add:
        """Return the request with its paths made absolute; who says no folder gets the first one, if not the default.

        Raises: NotAllowed, InvalidParams.
        """
        wanted = request.dir
        if wanted == DEFAULT_DIR and not self._has(_absolute("dir", wanted)):
            wanted = self._folders[0]
        named: dict[str, str] = {name: path for name in _PATHS if (path := getattr(request, name)) is not None}
        paths = {name: _absolute(name, path) for name, path in {"dir": wanted, **named}.items()}
        for name, path in paths.items():
            if not self._has(path):
                shown = ", ".join(self._folders)
                raise NotAllowed(f"{name}: {path} is not below {shown}; `autodl http --dir` says what is open by HTTP")
        absolute: dict[str, Any] = dict(paths)
        return dataclasses.replace(request, **absolute)

    def _has(self, path: str) -> bool:
        return any(folder in ("/", path) or path.startswith(folder + "/") for folder in self._folders)


def _absolute(name: str, path: str) -> str:
    expanded = os.path.expanduser(path) if path == "~" or path.startswith("~/") else path
    if not expanded.startswith("/") or "\0" in expanded:
        raise InvalidParams(f"{name} must be an absolute path, or begin with ~/: {path[:200]}")
    if ".." in expanded.split("/"):
        raise InvalidParams(f"{name} must have no `..` in it: {path[:200]}")
    return "/" + os.path.normpath(expanded).lstrip("/")
