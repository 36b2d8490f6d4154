"""How a daemon was asked to run: its command line, resolved.

Runs as: the supervisor.  Talks to: nobody; no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

SYSTEM_SOCKET = "/run/autodl/autodl.sock"
SYSTEM_STATE_DIR = "/var/lib/autodl"
SYSTEM_CONFIG = "/etc/autodl/autodl.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonOptions:
    """The command line of `autodl daemon`; None is the default for who runs it.

    `private` is the daemon that a client starts on demand: it says `ready` on standard output and ends
    after `idle_exit_s` seconds without work and clients.
    """

    max_tasks_num: int | None = None
    socket: str | None = None
    state_dir: str | None = None
    config: str | None = None
    private: bool = False
    idle_exit_s: float | None = None
