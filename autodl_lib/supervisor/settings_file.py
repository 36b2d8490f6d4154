"""Reading autodl.toml.

Runs as: the supervisor.  Talks to: the configuration file, which is root's (or the private daemon's user's).
"""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path

from autodl_lib.contract.errors import BadSettings
from autodl_lib.contract.settings import Settings, settings_from_toml


def read_settings(path: Path, *, required: bool) -> Settings:
    """Return the settings of a file; a missing one means defaults unless it is `required`.

    Raises: BadSettings.
    """
    try:
        # A pipe would keep everybody waiting for who writes into it.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadSettings(f"{path} is no file to read settings from")
            document = tomllib.load(file)
    except FileNotFoundError:
        if required:
            raise BadSettings(f"there is no configuration file {path}") from None
        return Settings()
    except OSError as error:
        raise BadSettings(f"can't read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path}: {error}") from None
    except RecursionError:
        raise BadSettings(f"{path} is nested too deeply") from None
    return settings_from_toml(document, str(path))
